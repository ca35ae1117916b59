"""The calibration file: what is kept is read again, and what is not usable says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from protocols.answers import Signals
from swarm.dispatch.learnt import VERSION, Labels, Learnt, Seen, Source, beside, comparable, is_right, load, save
from swarm.errors import CalibrationError

SEEN = Seen(signals=Signals(p=0.8, options={"a": 0.8}), correct=True, answer='{"label":"a"}', micro_usd=3, ms=12)
LEARNT = Learnt(
    version=VERSION,
    swarm="mood",
    plan_hash="f00",
    program="swarmlet 0",
    made="2026-01-02T03:04:05+00:00",
    data=Source(name="labels.jsonl", sha256="ab", items=1),
    models={"head": "cd"},
    steps={"mood": Labels(answers_hash="ef", rows=({"head": SEEN},))},
)


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    """A saved file holds everything that was learnt, and lies beside the swarm file."""
    path = beside(tmp_path / "triage.yaml")
    save(LEARNT, path)
    assert path == tmp_path / "triage.calibration.json"
    assert load(path) == LEARNT
    assert [p.name for p in tmp_path.iterdir()] == [path.name], "nothing half-written is left"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is damaged"),
        (b"[]", "is damaged"),
        (b'{"schema": "calibration/v9"}', "its schema is 'calibration/v9', this program reads 'calibration/v1'"),
        (b'{"schema": "calibration/v1", "swarm": 3}', "is damaged"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, content: bytes, said: str) -> None:
    """Damaged files and those of other versions are named, with the remedy."""
    path = tmp_path / "x.calibration.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match="swarm calibrate") as caught:
        load(path)
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """Saving into a folder that does not exist names the file and another way."""
    with pytest.raises(CalibrationError, match="--output"):
        save(LEARNT, tmp_path / "missing" / "x.json")


@pytest.mark.parametrize(
    ("output", "label", "right"),
    [
        ({"label": "a", "more": 1}, {"label": "a"}, True),
        ({"name": " Ann  Lee "}, {"name": "ann lee"}, True),
        ({"n": 1}, {"n": 1.0}, True),
        ({"n": True}, {"n": 1}, False),
        ({"list": ["A", {"x": "B"}]}, {"list": ["a", {"x": "b"}]}, True),
        ({"label": "b"}, {"label": "a"}, False),
        ({}, {"label": "a"}, False),
        ({"label": None}, {"label": "a"}, False),
    ],
)
def test_an_answer_is_right_where_it_says_what_its_label_says(
    output: dict[str, Any], label: dict[str, Any], right: bool
) -> None:
    """Case and outer spaces of text do not matter, kinds of values do; what is not labelled is not looked at."""
    assert is_right(output, label) is right


def test_equal_answers_have_equal_text() -> None:
    """The order of keys, case and spaces make no other answer; another value does."""
    assert comparable({"a": "X", "b": 1}) == comparable({"b": 1.0, "a": "x "})
    assert comparable({"a": "x"}) != comparable({"a": "y"})
