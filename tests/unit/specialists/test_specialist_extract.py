"""*extract*: patterns, and the small model that fills a schema."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from specialist_packs import FIELDS, answered, any_text, ask, extract_pack, failed, said_before

from protocols.packs import Pack
from swarm.engine.base import GenerateRequest
from swarm.engine.scripted import ScriptedEmbedder, ScriptedModel
from swarm.specialists import extract
from swarm.specialists.examples import ExampleIndex
from swarm.specialists.extract import Filler, Patterns

EMBEDDER = ScriptedEmbedder()
PACK = extract_pack()
INDEX = asyncio.run(ExampleIndex.build(PACK, EMBEDDER))
NOTHING = '{"order": null, "amount": null}'


def filler(model: ScriptedModel, pack: Pack = PACK, index: ExampleIndex = INDEX, embedder: Any = EMBEDDER) -> Filler:
    return Filler(pack, "small", model, index, embedder)


# --- patterns


async def test_first_match_of_each_field_is_taken() -> None:
    """Every field has its first pattern's first match, or null; nothing is spent on it."""
    answer = answered(await Patterns(PACK).answer(ask("B-7 or C-8? I paid EUR 20 for it")))
    assert answer.output == {"order": "B-7", "amount": "20"}
    assert answered(await Patterns(PACK).answer(ask("Hello"))).output == {"order": None, "amount": None}


@pytest.mark.parametrize(
    ("text", "explained"),
    [
        ("Hello", 1.0),
        ("paid 20 EUR", 1.0),
        ("A-1 and 20 EUR", 1.0),
        ("paid 20 EUR on 2024-05-03", 0.5),
        ("call 12345 or 67890", 0.0),
        ("£5", 0.0),
    ],
)
async def test_share_of_explained_numbers_is_the_certainty(text: str, explained: float) -> None:
    """Numbers and currency signs that no pattern accounts for make the patterns unsure: a field may be missed."""
    signals = answered(await Patterns(PACK).answer(ask(text))).signals
    assert signals.p == pytest.approx(explained)


async def test_group_outside_the_message_fails_its_check() -> None:
    """`in_message` holds for patterns too; what they copy stands in the message by nature."""
    answer = answered(await Patterns(PACK).answer(ask("A-1, 20 EUR")))
    assert answer.signals.checks_failed == ()


async def test_matches_that_do_not_satisfy_the_schema_are_no_answer() -> None:
    """A match that the schema does not allow is a failure that names the field, not an answer."""
    reply = failed(await Patterns(PACK).answer(ask("order A-123456789012345")))
    assert reply.reason == "invalid_output" and "output.order" in reply.detail
    numbers = {"type": "object", "properties": {"amount": {"type": "integer"}}}
    pack = extract_pack(output_schema=numbers, patterns={"amount": (r"(?P<value>\d+)",)}, examples=())
    assert failed(await Patterns(pack).answer(ask("20"))).reason == "invalid_output"


async def test_optional_group_without_a_match_is_null() -> None:
    """A pattern that matches without its value leaves the field null."""
    pack = extract_pack(patterns={"amount": (r"free|(?P<value>\d+)",)})
    assert answered(await Patterns(pack).answer(ask("free"))).output["amount"] is None


async def test_rehearsal_compares_with_the_examples() -> None:
    """Each example is tried: right is what the example says in every field."""
    rehearsed = await Patterns(extract_pack(patterns={"order": PACK.patterns["order"]})).rehearse()
    assert [r.correct for r in rehearsed] == [True, False, False, True]


# --- filler: the prompt


async def test_prompt_has_the_nearest_examples_and_the_schema() -> None:
    """The model is shown examples like the message, the nearest last, and is bound to the pack's schema."""
    model = ScriptedModel(generate=NOTHING)
    await filler(model).answer(ask("I paid 9 EUR for it."))
    (request,) = model.requests
    assert isinstance(request, GenerateRequest)
    assert request.schema == FIELDS and request.max_tokens == PACK.max_tokens and request.temperature == 0.0
    turns = request.prompt.turns
    assert [turn.role for turn in turns] == ["system", *["user", "assistant"] * extract.SHOTS, "user"]
    assert turns[-3].text == "Message: I paid 20 EUR for B-22." and turns[-1].text == "Message: I paid 9 EUR for it."
    assert json.loads(turns[-2].text) == PACK.examples[1].output


async def test_without_an_embedder_the_first_examples_are_shown() -> None:
    """A swarm without an embedding model uses the examples in the pack's order."""
    model = ScriptedModel(generate=NOTHING)
    await filler(model, embedder=None).answer(ask("I paid 9 EUR for it."))
    assert model.requests[0].prompt.turns[1].text == "Message: Where is order A-1?"


async def test_pack_without_examples_is_asked_without_examples() -> None:
    """A pack that has no examples works, with an embedding model as without one."""
    pack = extract_pack(examples=())
    for embedder in (EMBEDDER, None):
        model = ScriptedModel(generate=NOTHING)
        await filler(model, pack, await ExampleIndex.build(pack, EMBEDDER), embedder).answer(ask("hm"))
        assert len(model.requests[0].prompt.turns) == 2


async def test_examples_are_dropped_until_the_prompt_fits() -> None:
    """With less room fewer examples are shown, the farthest dropped first; the message stays whole."""
    shown = []
    for allowed in range(60, 200, 5):
        model = ScriptedModel(generate=NOTHING)
        await filler(model).answer(ask("I paid 9 EUR for it.", max_tokens=allowed))
        if model.requests:
            turns = model.requests[0].prompt.turns
            assert turns[-1].text == "Message: I paid 9 EUR for it."
            assert len(turns) == 2 or turns[-3].text == "Message: I paid 20 EUR for B-22."
            shown.append((len(turns) - 2) // 2)
    assert shown == sorted(shown) and set(shown) == {0, 1, 2, 3}


@given(text=any_text, allowed=st.integers(0, 900), bytes_per_token=st.integers(1, 4))
def test_no_more_is_used_than_was_allowed(text: str, allowed: int, bytes_per_token: int) -> None:
    """Whatever the message, prompt and answer stay within `max_tokens`, or nothing is asked."""
    model = ScriptedModel(generate="x" * 10_000, count=lambda t: -(-len(t.encode()) // bytes_per_token))
    reply = failed(asyncio.run(filler(model).answer(ask(text, max_tokens=allowed))))
    if model.requests:
        assert reply.reason == "invalid_output"
        assert reply.usage.tokens_in + reply.usage.tokens_out <= allowed
    else:
        assert reply.reason == "too_long"


@given(text=any_text)
def test_hold_is_enough_to_be_answered(text: str) -> None:
    """With the allowance that is held for it every message is read, in any script, and within it."""
    model = ScriptedModel(generate=NOTHING, count=lambda t: -(-len(t.encode()) // 2))
    held = extract.allowance(PACK, {"text": text})
    usage = answered(asyncio.run(filler(model).answer(ask(text, max_tokens=held)))).usage
    assert usage.tokens_in + usage.tokens_out <= held


# --- filler: the answer


async def test_answer_carries_the_models_own_certainty() -> None:
    """Mean and least log-probability of the generated tokens, and what the message does not hold."""
    answer = answered(await filler(ScriptedModel(generate='{"order": "Z-9", "amount": "20"}')).answer(ask("20 EUR")))
    assert answer.output == {"order": "Z-9", "amount": "20"}
    assert answer.signals.checks_failed == ("in_message:order",)
    assert answer.signals.mean_logprob == pytest.approx(-0.1) and answer.signals.min_logprob == pytest.approx(-0.1)
    assert answer.usage.tokens_in > 0 and answer.usage.tokens_out > 0


async def test_agreement_with_the_tier_before() -> None:
    """The share of fields on which the patterns had said the same."""
    earlier = said_before("x")
    earlier = type(earlier)("code", {"order": "a-1", "amount": None})
    model = ScriptedModel(generate='{"order": "A-1", "amount": "20"}')
    answer = answered(await filler(model).answer(ask("A-1 20", earlier=(earlier,))))
    assert answer.signals.agreement == 0.5


@pytest.mark.parametrize("text", ["{", "nothing", '{"order": 5, "amount": null}', '{"order": null}', ""])
async def test_output_beside_the_schema_is_a_failure(text: str) -> None:
    """What is no JSON, or not what the schema asks for, is never an answer; its tokens are counted."""
    reply = failed(await filler(ScriptedModel(generate=text)).answer(ask("hm")))
    assert reply.reason == "invalid_output" and reply.detail and not reply.retryable
    assert reply.usage.tokens_in > 0


async def test_cut_output_says_what_to_raise() -> None:
    """An output that does not end within the pack's tokens names the setting, though it may not even be JSON."""
    model = ScriptedModel(generate='{"order": "' + "A" * 1000)
    reply = failed(await filler(model).answer(ask("hm")))
    assert "40 tokens" in reply.detail and "max_tokens" in reply.detail


async def test_rehearsal_leaves_each_example_out_and_survives_failures() -> None:
    """No example stands in its own prompt; what comes back wrong or broken counts as wrong."""

    def say(request: GenerateRequest) -> str:
        last = request.prompt.turns[-1].text
        assert [turn.text for turn in request.prompt.turns].count(last) == 1
        return "broken" if "Hello" in last else '{"order": "A-1", "amount": null}'

    rehearsed = await filler(ScriptedModel(generate=say)).rehearse()
    assert [r.correct for r in rehearsed] == [True, False, False, False]
