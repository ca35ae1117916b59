"""Reliability: how true confidences are, in figures and drawn."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.dispatch.reliability import auroc, coverage_at, drawn, picture, reliability
from swarm.errors import SwarmError

answers = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]), st.booleans()), min_size=1, max_size=30)
TEN = ([0.9] * 10, [True] * 9 + [False])


def test_honest_confidences_have_no_calibration_error() -> None:
    """Nine of ten answers that said 0.9 were right."""
    found = reliability(*TEN, bins=1)
    assert (found.n, found.accuracy, found.bins[0].was) == (10, 0.9, 0.9)
    assert found.ece == pytest.approx(0.0)
    assert found.brier == pytest.approx(0.09)


def test_calibration_error_is_the_mean_gap_of_equally_full_bins() -> None:
    """Two bins, one 0.2 too sure, one 0.1 not sure enough."""
    found = reliability([0.7] * 10 + [0.9] * 10, [True] * 5 + [False] * 5 + [True] * 10, bins=2)
    assert [b.n for b in found.bins] == [10, 10]
    assert found.ece == pytest.approx((0.2 + 0.1) / 2)


@given(answers)
def test_auroc_counts_pairs(labelled: list[tuple[float, bool]]) -> None:
    """Of all pairs of a right and a wrong answer: the share where the right one is surer, ties half."""
    right = [said for said, ok in labelled if ok]
    wrong = [said for said, ok in labelled if not ok]
    pairs = [(r > w) + (r == w) / 2 for r in right for w in wrong]
    found = auroc([said for said, _ in labelled], [ok for _, ok in labelled])
    assert found == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


@given(answers, st.sampled_from([0.5, 0.8, 0.95]))
def test_coverage_is_the_best_threshold(labelled: list[tuple[float, bool]], accuracy: float) -> None:
    """No threshold on the confidence keeps more at this accuracy; equal confidences go together."""
    best = 0.0
    for threshold, _ in labelled:
        kept = [ok for said, ok in labelled if said >= threshold]
        if sum(kept) >= accuracy * len(kept) - 1e-9:
            best = max(best, len(kept) / len(labelled))
    found = coverage_at([said for said, _ in labelled], [ok for _, ok in labelled], accuracy)
    assert found == pytest.approx(best)


@given(st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.9]), st.booleans(), st.integers(1, 4)), min_size=1, max_size=20))
def test_an_answer_that_counts_three_times_is_three_answers(labelled: list[tuple[float, bool, int]]) -> None:
    """All figures but the calibration error, whose bins hold equally many lines, and what the labels are worth."""
    said, right, counts = zip(*labelled, strict=True)
    weighted = reliability(said, right, weights=counts)
    repeated = [(s, r) for s, r, n in labelled for _ in range(n)]
    plain = reliability([s for s, _ in repeated], [r for _, r in repeated])
    for figure in ("accuracy", "brier", "auroc", "coverage_95"):
        expected = getattr(plain, figure)
        assert getattr(weighted, figure) == (None if expected is None else pytest.approx(expected))
    assert weighted.n == len(labelled) and weighted.worth <= len(labelled) + 1e-9


def test_the_calibration_error_of_weighted_answers_is_that_of_the_mean_weighted() -> None:
    """One bin: 0.9 was said of one that counts three times and is right, and of one that counts once and is not."""
    found = reliability([0.9, 0.9], [True, False], bins=1, weights=[3.0, 1.0])
    assert found.ece == pytest.approx(0.9 - 0.75)
    assert (found.bins[0].was, found.worth) == (0.75, 1.6)


def test_no_answers_have_no_reliability() -> None:
    """It says what is missing."""
    with pytest.raises(ValueError, match="no labelled answers"):
        reliability([], [])


def test_the_diagram_fits_a_terminal() -> None:
    """A line for each of ten bins between a head and the figures, none wider than 80 characters."""
    said = [i / 100 for i in range(100)]
    lines = drawn(reliability(said, [p > 0.3 for p in said])).splitlines()
    assert len(lines) == 12
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].count("█") == 0
    assert lines[10].count("█") == 39  # and one is the mark
    assert "AUROC 1.000" in lines[-1]


def test_a_picture_is_written(tmp_path: Path) -> None:
    """As a PNG, of one or of several."""
    pytest.importorskip("matplotlib", reason="the extra 'plot' is not installed")
    for found in (reliability(*TEN), {"intent/head": reliability(*TEN), "intent/small": reliability(*TEN)}):
        picture(found, tmp_path / "reliability.png")
        assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    """A folder that is not there, a suffix that nothing is drawn in."""
    pytest.importorskip("matplotlib", reason="the extra 'plot' is not installed")
    for name in ("no/such/folder.png", "a.nothing"):
        with pytest.raises(SwarmError, match="cannot be written"):
            picture(reliability(*TEN), tmp_path / name)


def test_without_the_library_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is an extra."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SwarmError, match=r"pip install swarmlet\[plot\]"):
        picture(reliability(*TEN), tmp_path / "r.png")
