"""What a step remembers stands in the prompts of every kind, and in nothing that is not a prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from specialist_packs import answered, ask, classify_pack, extract_pack, generate_pack
from test_specialist_requests import chooser, filler, writer

from protocols.answers import Ask
from protocols.packs import Pack
from swarm.engine.base import Turn
from swarm.engine.scripted import ScriptedModel
from swarm.specialists import classify, extract, generate
from swarm.specialists.base import Answerer
from swarm.specialists.extract import Patterns
from swarm.specialists.generate import fill

NOTES = "charged twice → money\nnow order Z-9 → parcel"
GIVEN = {"text": "Where is it?", "intent": "parcel", "fields": None}
Made = Callable[[ScriptedModel, str | None], Answerer]


def last_turn(made: Made, given: Ask) -> Turn:
    model = ScriptedModel(generate='{"order": null, "amount": null}')
    asyncio.run(made(model, None).answer(given))
    (request,) = model.requests
    return request.prompt.turns[-1]


@pytest.mark.parametrize("made", [chooser, filler, writer])
def test_notes_are_in_the_prompt_before_the_message(made: Made) -> None:
    """A model reads the notes first; without any, the prompt is what it is without a memory."""
    with_notes, without = last_turn(made, ask({**GIVEN, "memory": NOTES})), last_turn(made, ask(GIVEN))
    assert with_notes.text.index(NOTES) < with_notes.text.index("Message: Where is it?")
    assert "Known from before" not in without.text and NOTES not in without.text


@pytest.mark.parametrize("made", [chooser, filler, writer])
def test_notes_that_leave_no_room_are_no_crash(made: Made) -> None:
    """A prompt that cannot fit with its notes is a failure that says so, as any other that is too long."""
    model = ScriptedModel(generate='{"order": null, "amount": null}')
    reply = asyncio.run(made(model, None).answer(ask({**GIVEN, "memory": "word " * 500}, max_tokens=200)))
    assert getattr(reply, "reason", None) == "too_long" and not model.requests


@pytest.mark.parametrize(
    ("allowance", "pack"),
    [
        (classify.allowance, classify_pack()),
        (extract.allowance, extract_pack()),
        (generate.allowance, generate_pack()),
    ],
)
def test_hold_grows_with_the_notes(allowance: Callable[[Pack, dict[str, object]], int], pack: Pack) -> None:
    """What a step may use counts what it is reminded of: at least a token for three bytes."""
    assert allowance(pack, {**GIVEN, "memory": NOTES}) >= allowance(pack, GIVEN) + len(NOTES) // 3


async def test_notes_are_not_read_as_the_message() -> None:
    """What stands in a note is neither extracted nor checked as if the customer had said it now."""
    pack = extract_pack()
    answer = answered(await Patterns(pack).answer(ask({"text": "Where is it?", "memory": NOTES})))
    assert answer.output == {"order": None, "amount": None}


def test_template_may_name_the_notes() -> None:
    """`{memory|…}` is a place like any other."""
    assert fill("Before: {memory|nothing}.", {"memory": NOTES}) == f"Before: {NOTES}."
    assert fill("Before: {memory|nothing}.", {}) == "Before: nothing."
