"""Answers to inputs that say nearly the same, within a stated error."""

from __future__ import annotations

import asyncio
import random

import pytest
from cache_desk import Desk, records

from swarm.dispatch.cache.gate import MOST_LOOKS
from swarm.dispatch.cache.recall import COINS
from swarm.dispatch.explore import uniform
from swarm.engine.scripted import ScriptedEmbedder
from swarm.plan.plan import Caching
from swarm.state.records import Records

SIMILAR = Caching("semantic", error=0.2, level=0.9)
WORDS = [f"w{i}" for i in range(12)]
LABELS = ("pay", "card", "loan")


def asked(seed: int, n: int) -> list[str]:
    """Texts that say one of three things with a few words around it, some of them in doubt."""
    dice, texts = random.Random(seed), []
    for _ in range(n):
        label = dice.choice(LABELS)
        said = f"{label} {label} {label}" if dice.random() < 0.9 else dice.choice(LABELS)
        texts.append(f"{dice.choice(WORDS)} {dice.choice(WORDS)} {dice.choice(WORDS)} {said} {label}")
    return texts


def desk(kept: Records) -> Desk:
    return Desk(SIMILAR, kept, embedder=ScriptedEmbedder())


async def test_similar_inputs_are_answered_within_the_promise() -> None:
    """Most are reused in the end, and the wrong ones stay within the bound that is stated."""
    d, wrong, reused = desk(records()), 0, 0
    await d.recall.open()
    for i, text in enumerate(asked(1, 900)):
        found = await d.answer(text, f"t-{i}")
        if found is not None and found.how == "near":
            reused += 1
            wrong += found.answer.output["label"] != text.split()[-1]
            assert found.similarity is not None and 0.0 < found.confidence <= 0.9
            assert found.rule.startswith("at most 0.2 of the requests answered wrongly by reuse, with probability 0.9")
    told = d.recall.statistics()["intent"]
    assert reused > 200
    assert wrong <= told.bound <= 0.2 * told.requests
    assert (told.near, told.asked) == (reused, 900)
    assert told.looked > 10
    assert told.saved.tokens == 100 * (told.near + told.exact + told.together)


async def test_what_was_learnt_lasts_and_its_standing_too() -> None:
    """A later run goes on where the one before has stopped, and reuses at once."""
    kept = records()
    first = desk(kept)
    await first.recall.open()
    for i, text in enumerate(asked(1, 500)):
        await first.answer(text, f"t-{i}")
    before = first.recall.statistics()["intent"]
    await first.recall.close()
    second = desk(kept)
    await second.recall.open()
    after = second.recall.statistics()["intent"]
    assert (after.requests, after.bound) == (before.requests, before.bound)
    found = [await second.answer(text, f"s-{i}") for i, text in enumerate(asked(2, 60))]
    assert sum(f is not None and f.how == "near" for f in found) > 10


async def test_two_programs_do_not_share_one_standing() -> None:
    """The second has the answers, but makes a promise of its own; when the first is gone, the next takes it over."""
    kept = records()
    first, second = desk(kept), desk(kept)
    await first.recall.open()
    for i, text in enumerate(asked(1, 300)):
        await first.answer(text, f"t-{i}")
    await second.recall.open()
    assert second.recall.statistics()["intent"].requests == 0
    assert await second.answer(asked(1, 1)[0], "s-0") is not None
    await second.answer("w1 pay w2 pay", "s-1")
    await second.recall.close()
    await first.recall.close()
    third = desk(kept)
    await third.recall.open()
    assert third.recall.statistics()["intent"].requests == first.recall.statistics()["intent"].requests


async def test_an_answer_that_was_not_kept_counts_as_a_wrong_reuse() -> None:
    """Where a look came to nothing, nobody knows; what is not known is not counted as right."""
    d = desk(records())
    await d.recall.open()
    for i, text in enumerate(asked(1, 300)):
        await d.answer(text, f"t-{i}")
    before, lost = d.recall.statistics()["intent"], 0
    for i, text in enumerate(asked(3, 100)):
        if await d.ask(text, f"s-{i}") is None:
            d.recall.not_kept(f"s-{i}", "intent")
            lost += 1
    assert lost > 10
    assert d.recall.statistics()["intent"].bound > before.bound


async def test_each_of_those_who_ask_the_same_at_once_is_a_request_of_its_own() -> None:
    """A reuse is not handed on: it could be wrong for all of them, and what is promised counts each."""
    d = desk(records())
    await d.recall.open()
    for i, text in enumerate(asked(1, 500)):
        await d.answer(text, f"t-{i}")
    before = d.recall.statistics()["intent"].requests
    never_looked_at = [f"s-{i}" for i in range(50) if uniform(f"s-{i}", "intent", COINS) > MOST_LOOKS][:4]
    found = await asyncio.gather(*(d.ask("w1 w2 pay pay pay pay", task) for task in never_looked_at))
    assert [f and f.how for f in found] == ["near"] * 4
    assert d.recall.statistics()["intent"].requests == before + 4


async def test_what_stands_beside_the_text_must_be_equal() -> None:
    """An amount or a name that differs is another question, however alike the texts are."""
    d = desk(records())
    await d.recall.open()
    for i, text in enumerate(asked(1, 400)):
        await d.answer(text, f"t-{i}")
    for i, text in enumerate(asked(4, 40)):
        assert await d.recall.ask(d.step, {"text": text, "customer": i}, f"s-{i}") is None


@pytest.mark.parametrize("text", ["", "word " * 300, None, 7])
async def test_an_input_that_cannot_be_judged_is_computed(text: object) -> None:
    """Too long to be read whole, empty, or no text: it is neither reused nor counted."""
    d = desk(records())
    await d.recall.open()
    for i in range(3):
        assert await d.recall.ask(d.step, {"text": text, "n": i}, f"t-{i}") is None
    assert d.recall.statistics()["intent"].requests == 0
