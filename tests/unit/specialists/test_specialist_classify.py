"""*classify*: the head on embeddings, and the small model that scores labels."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from specialist_packs import MESSAGES, answered, any_text, ask, classify_pack, failed, said_before

from protocols.packs import Pack
from swarm.engine.base import ScoreRequest
from swarm.engine.head import probabilities
from swarm.engine.scripted import ScriptedEmbedder, ScriptedModel, four_bytes
from swarm.errors import PromptTooLong
from swarm.specialists import classify
from swarm.specialists.classify import Chooser, Head, fit_head, option_signals, softmax
from swarm.specialists.examples import ExampleIndex

EMBEDDER = ScriptedEmbedder(dimension=256)


def index_of(pack: Pack) -> ExampleIndex:
    return asyncio.run(ExampleIndex.build(pack, EMBEDDER))


PACK = classify_pack()
INDEX = index_of(PACK)
FIT = fit_head(INDEX)


def head(pack: Pack = PACK, index: ExampleIndex = INDEX) -> Head:
    return Head(pack, index, fit_head(index) if pack is not PACK else FIT, EMBEDDER)


def chooser(model: ScriptedModel, pack: Pack = PACK, index: ExampleIndex = INDEX, head: Head | None = None) -> Chooser:
    return Chooser(pack, "small", model, index, EMBEDDER, head)


def scores(**by_label: float) -> dict[str, float]:
    return {f" {label}": logprob for label, logprob in by_label.items()}


# --- head


async def test_head_separates_what_is_separable() -> None:
    """Messages with the words of one label get that label, with high probability and little entropy."""
    for label, text in (("parcel", "courier lost parcel"), ("money", "refund my fee"), ("login", "account password")):
        answer = answered(await head().answer(ask(text)))
        assert answer.output == {"label": label}
        assert answer.signals.p is not None and answer.signals.p > 0.6
        assert answer.signals.margin is not None and answer.signals.margin > 0.3
        assert answer.usage.tokens_in == 0, "a head uses no language model"


async def test_head_is_unsure_of_what_it_has_not_seen() -> None:
    """A message without any known word is given a lower probability, a higher entropy and a lower similarity."""
    known = answered(await head().answer(ask("my parcel is late"))).signals
    foreign = answered(await head().answer(ask("quarterly zebra census"))).signals
    assert (foreign.p or 0) < (known.p or 0) and (foreign.entropy or 0) > (known.entropy or 0)
    assert (foreign.similarity or 0) < (known.similarity or 0)


def test_held_out_probabilities_are_of_fits_that_had_not_seen_the_example() -> None:
    """A word that stands in one example only says nothing about it when that example is left out."""
    messages = {label: [f"{label} {word}" for word in ("x", "y", "z", "w")] for label in ("one", "two")}
    messages["one"].append("odd")
    index = index_of(classify_pack(messages))
    fit = fit_head(index)
    odd = 4
    seen = probabilities(fit.weights, fit.bias, index.vectors[odd])[fit.labels.index("one")]
    assert seen > 0.6 > fit.held_out[odd][fit.labels.index("one")]


@pytest.mark.parametrize("messages", [MESSAGES, {k: MESSAGES[k] for k in ("parcel", "login")}])
def test_probabilities_add_up_to_one(messages: dict[str, list[str]]) -> None:
    """With two labels as with more, fitted and held-out probabilities add up to one."""
    index = index_of(classify_pack(messages))
    fit = fit_head(index)
    assert np.allclose(fit.held_out.sum(axis=1), 1, atol=1e-5)
    for i, p in enumerate(probabilities(fit.weights, fit.bias, index.vectors)):
        assert abs(float(p.sum()) - 1) < 1e-5
        assert fit.labels[int(p.argmax())] == index.keys[i], "separable examples are fitted"


async def test_rehearsal_of_separable_examples_is_mostly_right() -> None:
    """What the head says of examples it had not seen is right where their words are known."""
    rehearsed = await head().rehearse()
    assert len(rehearsed) == len(PACK.examples)
    assert sum(r.correct for r in rehearsed) / len(rehearsed) > 0.7


async def test_label_with_one_example_cannot_be_rehearsed() -> None:
    """Where a label has a single example nothing can be held out: the head answers, and learns nothing of itself."""
    pack = classify_pack({**MESSAGES, "rare": ["a unicorn called"]})
    index = await ExampleIndex.build(pack, EMBEDDER)
    rare = head(pack, index)
    assert answered(await rare.answer(ask("unicorn called"))).output == {"label": "rare"}
    assert await rare.rehearse() == [] and rare.held_out(0) is None
    rehearsed = await chooser(ScriptedModel(), pack, index, rare).rehearse()
    assert rehearsed and all(r.signals.agreement is None for r in rehearsed), "the tier above hears nothing of it"


# --- chooser: the prompt


async def test_prompt_holds_labels_and_the_nearest_examples() -> None:
    """The model sees the labels, examples near the message with their labels, the message last, options as words."""
    messages = {"lost_parcel": MESSAGES["parcel"], "money": MESSAGES["money"]}
    pack = classify_pack(messages)
    model = ScriptedModel()
    await chooser(model, pack, await ExampleIndex.build(pack, EMBEDDER)).answer(ask("the courier lost my parcel"))
    (request,) = model.requests
    assert isinstance(request, ScoreRequest)
    assert request.options == (" lost parcel", " money") and request.prompt.answer_start == "Label:"
    system, *turns = request.prompt.turns
    assert system.text.startswith(pack.instructions) and "lost parcel, money" in system.text
    assert turns[-1].role == "user" and turns[-1].text.endswith("Message: the courier lost my parcel")
    shown = "\n".join(turn.text for turn in turns)
    assert "parcel lost by the courier" in shown and "Label: lost parcel" in shown and "Label: money" in shown
    assert shown.index("parcel lost by the courier") > shown.rindex("Label: money"), "the nearest stands last"


async def test_rehearsed_example_is_not_in_its_own_prompt() -> None:
    """An example is answered from the others."""
    model = ScriptedModel()
    await chooser(model).rehearse()
    assert len(model.requests) == len(PACK.examples)
    for request in model.requests:
        text = "\n".join(turn.text for turn in request.prompt.turns)
        message = request.prompt.turns[-1].text.rpartition("Message: ")[2]
        assert text.count(f"Message: {message}") == 1


async def test_of_many_labels_the_likely_ones_are_scored() -> None:
    """With more labels than can be scored the nearest are, and those that an earlier tier had named."""
    messages = {f"label_{i}": [f"word{i} other", f"word{i} more"] for i in range(40)}
    pack = classify_pack(messages)
    model = ScriptedModel()
    many = chooser(model, pack, await ExampleIndex.build(pack, EMBEDDER))
    await many.answer(ask("about word7", earlier=(said_before("label_33", label_33=0.4, label_2=0.3),)))
    (request,) = model.requests
    assert isinstance(request, ScoreRequest)
    assert len(request.options) == classify.SHORTLIST == len(set(request.options))
    assert {" label 33", " label 2", " label 7"} <= set(request.options)
    assert "label 39" not in request.prompt.turns[0].text


@given(text=any_text, spare=st.integers(0, 700), bytes_per_token=st.integers(1, 4))
def test_no_more_is_used_than_was_allowed(text: str, spare: int, bytes_per_token: int) -> None:
    """Whatever the message, its script and length, prompt and options stay within `max_tokens`, or nothing is asked."""
    model = ScriptedModel(count=lambda t: -(-len(t.encode()) // bytes_per_token))
    reply = asyncio.run(chooser(model).answer(ask(text, max_tokens=spare)))
    if model.requests:
        assert answered(reply).usage.tokens_in <= spare
    else:
        assert failed(reply).reason == "too_long" and f"{spare:,} tokens" in failed(reply).detail


@given(text=any_text)
def test_hold_is_enough_to_be_answered(text: str) -> None:
    """With the allowance that is held for it every message is answered, in any script, and within it."""
    model = ScriptedModel(count=lambda t: -(-len(t.encode()) // 2))
    held = classify.allowance(PACK, {"text": text})
    reply = answered(asyncio.run(chooser(model).answer(ask(text, max_tokens=held))))
    assert reply.usage.tokens_in <= held


async def test_message_is_cut_rather_than_refused() -> None:
    """Where a message is too much for what is allowed, its ends are read."""
    model = ScriptedModel(count=len)
    answered(await chooser(model).answer(ask("begin " + "x" * 10_000 + " end", max_tokens=250)))
    last = model.requests[0].prompt.turns[-1].text
    assert last.startswith("Message: begin ") and last.endswith(" end")


async def test_ordinary_message_gets_all_its_examples() -> None:
    """The allowance of a message in English has room for the whole prompt."""
    text = "Hello, I ordered a lamp three weeks ago and it is still not here. Could you tell me where my parcel is?"
    model = ScriptedModel(count=four_bytes)
    await chooser(model).answer(ask(text, max_tokens=classify.allowance(PACK, {"text": text})))
    (request,) = model.requests
    assert sum(turn.text.count("Label: ") for turn in request.prompt.turns) == classify.SHOTS


# --- chooser: the answer


async def test_likeliest_label_is_chosen() -> None:
    """The label with the highest log-probability is the answer; signals say how sure that is."""
    answer = answered(await chooser(ScriptedModel(scores(money=-0.1, parcel=-3.0, login=-5.0))).answer(ask("hm")))
    signals = answer.signals
    assert answer.output == {"label": "money"} and list(signals.options) == ["money", "parcel", "login"]
    assert signals.p is not None and signals.p > 0.5 and signals.agreement is None
    assert abs(sum(signals.options.values()) - 1) < 1e-3


@pytest.mark.parametrize(("before", "agrees"), [("money", 1.0), ("parcel", 0.0)])
async def test_agreement_is_with_what_the_model_alone_says(before: str, agrees: float) -> None:
    """The model agrees or not by its own scores, though the answer may follow a surer earlier tier."""
    sure = said_before(before, **{before: 0.999})
    answer = answered(await chooser(ScriptedModel(scores(money=-1.0, parcel=-1.2))).answer(ask("hm", earlier=(sure,))))
    assert answer.signals.agreement == agrees
    assert answer.output == {"label": before}


async def test_earlier_doubt_can_be_turned() -> None:
    """A tier below that was undecided is overruled by a model that is sure."""
    unsure = said_before("parcel", parcel=0.36, money=0.34, login=0.30)
    answer = answered(
        await chooser(ScriptedModel(scores(money=-0.01, parcel=-9.0, login=-9.0))).answer(ask("hm", earlier=(unsure,)))
    )
    assert answer.output == {"label": "money"} and answer.signals.agreement == 0.0


async def test_label_that_the_earlier_tier_did_not_name_stays_possible() -> None:
    """Labels beyond the five that an earlier tier reports share what it left over."""
    earlier = said_before("parcel", parcel=0.5, money=0.1)
    answer = answered(
        await chooser(ScriptedModel(scores(login=0.0, parcel=-9.0, money=-9.0))).answer(ask("hm", earlier=(earlier,)))
    )
    assert answer.output == {"label": "login"}


async def test_bias_towards_a_label_is_taken_off() -> None:
    """A model that says one label to everything is, once rehearsed, heard where it says another a little louder."""

    def biased(request: ScoreRequest) -> dict[str, float]:
        last = request.prompt.turns[-1].text
        return scores(money=-1.0, parcel=-1.4 if "courier" in last else -3.0, login=-3.0)

    model = chooser(ScriptedModel(biased))
    before = answered(await model.answer(ask("hm, courier")))
    await model.rehearse()
    after = answered(await model.answer(ask("hm, courier")))
    assert before.output == {"label": "money"} and after.output == {"label": "parcel"}


async def test_rehearsal_starts_where_the_head_is_least_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The few examples that are rehearsed are those that the head would pass on."""
    monkeypatch.setattr(classify, "REHEARSALS", 3)
    sure = head()
    model = ScriptedModel()
    rehearsed = await chooser(model, head=sure).rehearse()
    least = sorted((said[1].p or 0) for i in range(len(PACK.examples)) if (said := sure.held_out(i)))[:3]
    asked = [request.prompt.turns[-1].text.rpartition("Message: ")[2] for request in model.requests]
    texts = [str(e.input["text"]) for e in PACK.examples]
    found = sorted((said[1].p or 0) for text in asked if (said := sure.held_out(texts.index(text))))
    assert len(rehearsed) == 3 and found == least


async def test_errors_of_the_engine_pass_through() -> None:
    """A prompt that the engine refuses is the host's business to report."""
    with pytest.raises(PromptTooLong):
        await chooser(ScriptedModel(context=10)).answer(ask("hm"))


# --- arithmetic


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_softmax_is_a_distribution(values: list[float]) -> None:
    """Any scores become probabilities that add up to one."""
    p = softmax(np.array(values))
    assert abs(float(p.sum()) - 1) < 1e-4 and bool((p >= 0).all())


@given(weights=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=40).filter(lambda w: sum(w) > 0.01))
def test_signals_of_a_choice_are_within_their_ranges(weights: list[float]) -> None:
    """The best option is first, margin and entropy are between 0 and 1, at most five options are told."""
    options: dict[str, Any] = {str(i): w / sum(weights) for i, w in enumerate(weights)}
    signals = option_signals(options, 0.5)
    assert signals.p == max(options.values()) == options[next(iter(signals.options))]
    assert signals.margin is not None and 0 <= signals.margin <= 1
    assert signals.entropy is not None and -1e-9 <= signals.entropy <= 1 + 1e-9
    assert len(signals.options) == min(5, len(weights))
