"""The small things that all kinds of specialists share."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from specialist_packs import FIELDS, any_text, classify_pack, extract_pack

from swarm.config.schemas import Validator
from swarm.engine.scripted import ScriptedEmbedder, ScriptedModel
from swarm.specialists.base import (
    EMBEDDED,
    agreement,
    cut,
    failed_checks,
    gist,
    in_message,
    parse_output,
    text_allowance,
    text_of,
)
from swarm.specialists.examples import ExampleIndex

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
json_values = st.recursive(scalars, lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=10)


# --- texts


def test_text_is_the_first_input() -> None:
    """What is read is the pack's first input; one that is no text is read as JSON, a missing one is empty."""
    pack = classify_pack(input=("text", "other"), messages={"a": [], "b": []})
    assert text_of(pack, {"other": "x", "text": "hello"}) == "hello"
    assert text_of(pack, {"text": {"ä": [1, None]}}) == '{"ä": [1, null]}'
    assert text_of(pack, {}) == ""


@given(text=any_text, most=st.integers(1, 300), bytes_per_token=st.integers(1, 4))
def test_cut_text_fits_and_keeps_both_ends(text: str, most: int, bytes_per_token: int) -> None:
    """A cut text is within the limit by the model's own count, in any script, and holds the beginning and the end."""
    model = ScriptedModel(count=lambda t: -(-len(t.encode()) // bytes_per_token))
    short = cut(text, model, most)
    assert model.count(short) <= most
    if model.count(text) <= most:
        assert short == text
    elif short:
        start, end = short.split(" … ", 1) if short.count(" … ") == 1 else (short[:1], short[-1:])
        assert text.startswith(start) and text.endswith(end) and start and end


def test_cut_keeps_most_of_what_there_is_room_for() -> None:
    """Of a long text about as much is kept as fits, not a word or two."""
    short = cut("word " * 5000, ScriptedModel(), 600)
    assert 400 <= ScriptedModel().count(short) <= 600


@pytest.mark.parametrize("most", [0, 1, 5])
def test_cut_to_nothing_is_nothing(most: int) -> None:
    """Where not even both ends fit, nothing is left, rather than everything."""
    assert cut("x" * 10_000, ScriptedModel(count=len), most) in ("", "x … x")


@given(text=any_text)
def test_gist_is_short_and_holds_both_ends(text: str) -> None:
    """What is embedded is bounded, and keeps the end of a long message, where requests often stand."""
    short = gist(text)
    assert len(short) <= EMBEDDED + 3
    assert short.startswith(text[:400]) and short.endswith(text[-400:])


@given(text=st.text(st.characters(codec=None)), most=st.integers(8, 1000))
def test_allowance_for_a_text_is_bounded(text: str, most: int) -> None:
    """Any string has an allowance, half a surrogate pair too, and none is above the limit."""
    assert 8 <= text_allowance(text, most) <= most


@given(text=any_text)
def test_allowance_is_plenty_in_any_script(text: str) -> None:
    """At two bytes a token, which few scripts need, a text is read whole."""
    assert text_allowance(text, 10**9) >= -(-len(text.encode()) // 2)


# --- checks and agreement


@pytest.mark.parametrize(
    ("value", "text", "is_in"),
    [
        ("A-12", "order a-12, please", True),
        ("20 EUR", "20\u00a0 \n eur", True),
        ("STRASSE", "Straße 5", True),
        ("", "anything", True),
        ("A-13", "order A-12", False),
        ("12 A", "A 12", False),
    ],
)
def test_value_stands_in_the_message_but_for_case_and_spaces(value: str, text: str, is_in: bool) -> None:
    """`in_message` folds case and the width of spaces, and nothing else."""
    assert in_message(value, text) is is_in


def test_failed_checks_name_the_fields() -> None:
    """Each invented value is named; null and numbers are not looked for; without the check nothing fails."""
    output = {"order": "Z-9", "amount": "20", "other": None, "count": 5}
    assert failed_checks(extract_pack(), output, "paid 20") == ("in_message:order",)
    assert failed_checks(extract_pack(checks=()), output, "paid 20") == ()


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ({"a": "X ", "b": None}, {"a": "x", "b": None}, 1.0),
        ({"a": "x", "b": "y"}, {"a": "x", "b": "z"}, 0.5),
        ({"a": "x"}, {}, 0.0),
        ({}, {"a": "x"}, 1.0),
        ({"a": 1, "b": [1]}, {"a": "1", "b": [1]}, 0.5),
    ],
)
def test_agreement_is_the_share_of_equal_fields(one: dict[str, Any], other: dict[str, Any], share: float) -> None:
    """Two outputs agree field by field, texts but for case and spaces."""
    assert agreement(one, other) == share


# --- a model's JSON


def parsed(text: str, schema: dict[str, Any] | None = None) -> dict[str, Any] | str:
    return parse_output(Validator(schema or {"type": "object"}), text)


@settings(max_examples=50)
@given(value=st.dictionaries(st.text(), json_values, max_size=5))
def test_what_is_taken_can_be_sent_on(value: dict[str, Any]) -> None:
    """Whatever JSON a model writes is either refused with a sentence or can cross a process boundary."""
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        output = parsed(text)
        if isinstance(output, str):
            assert output.startswith("not JSON")
        else:
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(output)) == output


@given(text=st.text(st.characters(codec=None)) | st.text(alphabet='{}[]",:0123456789eE+-. \\u'))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Any text at all is an output or a short sentence."""
    output = parsed(text)
    assert isinstance(output, dict) or len(output) < 400


@pytest.mark.parametrize(
    "text",
    ["", "{", "}{", "[1]", '{"a"}', '{"a": NaN}', '{"a": Infinity}', '{"a": 1e999}', '{"a": 1' + "0" * 30 + "}",
     '{"a": "\\ud800"}', '{"a": ' + "[" * 100_000 + "}", '{"a": "\ud800"}', '{"a": 1} and {"b": 2}'],
)  # fmt: skip
def test_what_is_no_json_is_refused(text: str) -> None:
    """Broken, endless and unsendable JSON is refused with a sentence, never with an exception."""
    assert str(parsed(text)).startswith("not JSON")


def test_json_is_found_between_other_words() -> None:
    """Models like to talk around their JSON."""
    assert parsed('Sure: ```json\n{"a": 1}\n``` Done.') == {"a": 1}


def test_long_wrong_output_makes_a_short_sentence() -> None:
    """What does not satisfy the schema is named without repeating all of it."""
    problem = parsed(json.dumps({"order": "x" * 1_000_000, "amount": None}), FIELDS)
    assert isinstance(problem, str) and "order" in problem and len(problem) < 400


# --- examples as vectors


async def test_nearest_examples_come_last_and_one_can_be_left_out() -> None:
    """The nearest example stands next to the question; a left-out one is not among them."""
    pack = classify_pack()
    index = await ExampleIndex.build(pack, ScriptedEmbedder())
    nearest = index.nearest(index.cosines(index.vectors[4]), 3)
    assert nearest[-1] == pack.examples[4] and len(nearest) == 3
    assert pack.examples[4] not in index.nearest(index.cosines(index.vectors[4], without=4), 18)


async def test_at_most_so_many_examples_of_one_output() -> None:
    """A prompt is not filled with one label only."""
    index = await ExampleIndex.build(classify_pack(), ScriptedEmbedder())
    nearest = index.nearest(index.cosines(index.vectors[0]), 18, per_key=2)
    assert len(nearest) == 6
    assert sorted(e.output["label"] for e in nearest) == ["login", "login", "money", "money", "parcel", "parcel"]


async def test_labels_are_ranked_by_their_nearest_example() -> None:
    """The label of the example that is the text itself comes first."""
    index = await ExampleIndex.build(classify_pack(), ScriptedEmbedder())
    assert index.likely_labels(index.cosines(index.vectors[13]), 2)[0] == "login"


async def test_pack_without_examples_has_nothing_near() -> None:
    """A pack without examples has an index all the same: no neighbours, no similarity."""
    embedder = ScriptedEmbedder()
    pack = extract_pack(examples=())
    assert (await ExampleIndex.build(pack, embedder)).vectors.shape[0] == 0
    index = ExampleIndex(pack, np.zeros((0, 0), np.float32))  # as an embedder that does not know its dimension yet
    (vector,) = await embedder.embed(("hello",))
    cosines = index.cosines(vector)
    assert (
        index.nearest(cosines, 3) == [] and index.similarity(cosines) == 0.0 and index.likely_labels(cosines, 3) == []
    )


async def test_similarity_of_a_known_text_is_higher() -> None:
    """Mean nearness to the nearest five tells a text like the examples from one unlike them."""
    embedder = ScriptedEmbedder()
    index = await ExampleIndex.build(classify_pack(), embedder)
    like, unlike = await embedder.embed(("where is my parcel, the courier lost it", "quarterly zebra census"))
    assert index.similarity(index.cosines(like)) > index.similarity(index.cosines(unlike)) + 0.2
