"""Several candidates, and the one that stands for them."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from specialist_packs import answered, ask, extract_pack, failed, generate_pack

from protocols.answers import Answer, Ask, Earlier, Failed
from swarm.engine.base import GenerateRequest
from swarm.engine.scripted import ScriptedEmbedder, ScriptedModel
from swarm.specialists.examples import ExampleIndex
from swarm.specialists.extract import Filler
from swarm.specialists.generate import Writer
from swarm.specialists.samples import TEMPERATURE, shared_words

PACK = extract_pack()
INDEX = asyncio.run(ExampleIndex.build(PACK, ScriptedEmbedder()))
TEXT = "A-1 and B-2, 20 EUR"


def drawn(*texts: str) -> ScriptedModel:
    """A model whose candidates are these, one after the other."""

    def text(request: GenerateRequest) -> str:
        return texts[request.seed % len(texts)]

    return ScriptedModel(generate=text)


def said(order: str | None, amount: str | None = "20") -> str:
    return json.dumps({"order": order, "amount": amount})


def several(samples: int, *earlier: Earlier, max_tokens: int = 100_000) -> Ask:
    return msgspec.structs.replace(ask(TEXT, max_tokens, earlier), samples=samples)


async def filled(*texts: str, samples: int = 5, earlier: tuple[Earlier, ...] = ()) -> Answer | Failed:
    return await Filler(PACK, "small", drawn(*texts), INDEX, None).answer(several(samples, *earlier))


async def test_the_answer_that_most_candidates_give_is_chosen() -> None:
    """Three of five say A-1; the rule of succession makes that four sevenths."""
    answer = answered(await filled(said("B-2"), said("A-1"), said("A-1"), said(None), said("A-1")))
    assert answer.output["order"] == "A-1"
    assert answer.signals.p == pytest.approx(4 / 7)
    assert answer.signals.margin == pytest.approx(1 / 7)


async def test_candidates_differ_and_are_drawn_after_one_prompt() -> None:
    """They are written with a temperature, each with its own seed; a single answer is not."""
    model = drawn(said("A-1"))
    await Filler(PACK, "small", model, INDEX, None).answer(several(3))
    await Filler(PACK, "small", model, INDEX, None).answer(several(1))
    requests = [request for request in model.requests if isinstance(request, GenerateRequest)]
    assert [(r.seed, r.temperature) for r in requests] == [(i, TEMPERATURE) for i in range(3)] + [(0, 0.0)]
    assert len({r.prompt for r in requests}) == 1


async def test_a_candidate_that_fails_its_checks_is_passed_over() -> None:
    """However many make the same thing up, what stands in the message is taken; their votes are not for it."""
    answer = answered(await filled(said("Z-9"), said("Z-9"), said("Z-9"), said("A-1"), said("Z-9")))
    assert (answer.output["order"], answer.signals.checks_failed) == ("A-1", ())
    assert answer.signals.p == pytest.approx(2 / 7)


async def test_what_is_no_answer_votes_for_nothing() -> None:
    """Two candidates of four break the schema: the others agree, and are not as sure as four would be."""
    answer = answered(await filled("no", said("A-1"), samples=4))
    assert answer.signals.p == pytest.approx(3 / 6)
    reply = failed(await filled("no", samples=4))
    assert reply.reason == "invalid_output"


async def test_all_candidates_are_paid_for() -> None:
    """Tokens of the chosen and of the others count."""
    one = answered(await filled(said("A-1"), samples=1)).usage
    four = answered(await filled(said("A-1"), samples=4)).usage
    assert (four.tokens_in, four.tokens_out) == (4 * one.tokens_in, 4 * one.tokens_out)


async def test_to_agree_with_oneself_is_no_agreement() -> None:
    """The first answer of the same tier is no second opinion; that of another tier is."""
    same = Earlier("small", {"order": "A-1", "amount": "20"})
    other = Earlier("code", {"order": "A-1", "amount": "20"})
    for earlier, agrees in (((same,), None), ((other, same), 1.0)):
        answer = answered(await filled(said("A-1"), earlier=earlier))
        assert answer.signals.agreement == agrees


@given(allowed=st.integers(0, 4000), samples=st.integers(1, 6))
def test_no_more_is_used_than_was_allowed(allowed: int, samples: int) -> None:
    """However many are drawn, prompts and answers together stay within `max_tokens`, or nothing is asked."""
    model = ScriptedModel(generate="x" * 10_000)
    reply = failed(asyncio.run(Filler(PACK, "small", model, INDEX, None).answer(several(samples, max_tokens=allowed))))
    if model.requests:
        assert reply.usage.tokens_in + reply.usage.tokens_out <= allowed
    else:
        assert reply.reason == "too_long"


async def test_the_text_that_shares_most_words_stands_for_all() -> None:
    """Free texts never meet word for word; how much they share is how sure the chosen one is."""
    model = drawn("your parcel is late", "your parcel is on its way", "we like cats")
    given_ = {"text": "hm", "intent": "praise", "fields": None}
    request = msgspec.structs.replace(ask(given_), samples=3)
    answer = answered(await Writer(generate_pack(), model).answer(request))
    assert answer.output == {"text": "your parcel is late"}
    assert answer.signals.p == pytest.approx((1 + 2 * 3 / 10 + 0 + 1) / 5)


def test_shared_words_are_counted_once_each() -> None:
    """The harmonic mean of both shares; equal texts share all, and order does not matter."""
    assert shared_words({"text": "a b c"}, {"text": "c B a"}) == 1.0
    assert shared_words({"text": "a a"}, {"text": "a"}) == pytest.approx(2 / 3)
    assert shared_words({"text": "a"}, {"text": "b"}) == 0.0
