"""The calibration file: what is kept is read again, and what is not usable says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from protocols.answers import Signals
from swarm.dispatch.learnt import (
    VERSION,
    Labels,
    Learnt,
    Seen,
    Source,
    Taught,
    beside,
    comparable,
    halves,
    is_right,
    load,
    pooled,
    save,
)
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
    steps={
        "mood": Labels(
            answers_hash="ef",
            rows=({"head": SEEN},),
            taught=(Taught(seen={"head": SEEN}, propensity=0.1),),
            teacher="r",
        )
    },
    runs=Source(name="runs", sha256="12", items=1),
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


# --- what runs have taught --------------------------------------------------------------------------------------


def item(correct: bool, propensity: float, *, plain: bool = True) -> Taught:
    return Taught(seen={"head": Seen(signals=Signals(p=0.5), correct=correct)}, propensity=propensity, plain=plain)


def test_a_promise_goes_by_the_truth_where_there_is_any() -> None:
    """True labels are cut in two and show alone; what runs have taught is all learnt from."""
    rows = tuple({"head": Seen(signals=Signals(p=i / 10), correct=True)} for i in range(10))
    taught = (item(True, 1.0), item(False, 0.1))
    cut = halves(Labels(answers_hash="", rows=rows, taught=taught, teacher="remote"))
    assert (cut.rows, cut.shown, cut.taught, cut.teacher) == (rows[::2], rows[1::2], taught, "")


def test_without_the_truth_a_plain_sample_of_what_a_tier_taught_shows() -> None:
    """Half of it, none of which was learnt from; whose word that is, is told."""
    taught = tuple(item(bool(i % 3), 1.0, plain=i % 4 < 2) for i in range(40))
    cut = halves(Labels(answers_hash="", taught=taught, teacher="remote"))
    assert (list(cut.taught), cut.teacher) == (list(taught[::2]), "remote")
    assert cut.shown == [one.seen for one in taught[1::2] if one.plain]


def test_pooled_labels_count_for_what_they_are_worth() -> None:
    """A true one once; of the others the seldom seen more, and all of them together no more than their worth."""
    rows, counts = pooled(({"head": SEEN}, {"head": SEEN}), (item(True, 0.1), item(True, 1.0), item(False, 0.1)))
    assert len(rows) == 5 and counts[:2] == [1.0, 1.0]
    assert counts[2] == counts[4] == pytest.approx(10 * counts[3])
    assert sum(counts[2:]) == pytest.approx(21**2 / 201)
    assert pooled(({"head": SEEN},), ()) == ([{"head": SEEN}], [1.0])
