"""The nearest earlier inputs, and the answer they speak for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from swarm.dispatch.cache.neighbours import NEAREST, Candidate, Neighbours, candidate

BENCHMARKS = Path(__file__).parents[4] / "benchmarks"


def vectors(n: int, seed: int = 0, dimension: int = 8) -> NDArray[np.float32]:
    made = np.random.default_rng(seed).standard_normal((n, dimension)).astype(np.float32)
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)


def filled(given: NDArray[np.float32], answers: list[int], most: int = 20_000) -> Neighbours:
    near = Neighbours(given.shape[1], most)
    for vector, answer in zip(given, answers, strict=True):
        near.add(vector, answer)
    return near


def test_the_answer_with_the_most_votes_is_the_candidate() -> None:
    """A vote counts the more the nearer it is; the row is the nearest of those that gave the answer."""
    similar = np.array([0.90, 0.89, 0.88, 0.50], np.float32)
    found = candidate(np.array([7, 3, 5, 1]), similar, np.array([1, 2, 2, 1]))
    assert found is not None
    assert (found.row, found.given) == (3, 2)
    assert found.similarity == pytest.approx(0.89)
    assert found.margin == pytest.approx(-0.01)
    assert 0.5 < found.share < 0.7


def test_one_neighbour_alone_says_too_little() -> None:
    """There is no second one to compare it with."""
    near = filled(vectors(1), [4])
    assert near.nearest(vectors(1)[0]) is None


def test_it_grows_and_finds_what_sorting_would_find() -> None:
    """Past the room made at first; the nearest of all rows."""
    given = vectors(1_000)
    near = filled(given, [0] * 1_000)
    asked = vectors(1, seed=9)[0]
    found = near.nearest(asked)
    assert found is not None
    order = np.argsort(-(given @ asked))
    assert found.row == order[0]
    assert found.margin == pytest.approx((given @ asked)[order[0]] - (given @ asked)[order[NEAREST - 1]], abs=1e-5)
    assert len(near) == 1_000


def test_when_full_the_oldest_gives_way() -> None:
    """It never holds more than it may."""
    given = vectors(7)
    near = filled(given, [0, 1, 2, 3, 4, 5, 6], most=5)
    assert len(near) == 5
    found = near.nearest(given[6])
    assert found is not None and found.row == 1


def test_other_groups_and_dropped_rows_have_no_say() -> None:
    """An input of another group is another question, and what has expired is not there."""
    given = vectors(4)
    near = Neighbours(8)
    for i, group in enumerate([0, 0, 0, 1]):
        near.add(given[i], i, group)
    assert near.nearest(given[3], group=1) is None
    first = near.nearest(given[0])
    assert first is not None and first.row == 0
    near.drop(0)
    second = near.nearest(given[0])
    assert second is not None and second.row != 0


def test_the_benchmark_finds_the_same_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it measures is what runs: its lists of neighbours give the candidates that the products give."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    from cached.stream import Held, Messages

    given, labels = vectors(300, seed=2), np.random.default_rng(1).integers(0, 5, 300)
    cosines = given @ given.T - 3 * np.eye(300, dtype=np.float32)
    order = np.argsort(-cosines, axis=1)[:, :40]
    held = Held(Messages("", given, labels, order.astype(np.int32), np.take_along_axis(cosines, order, 1)))
    near, rows = Neighbours(8), []
    for place in np.random.default_rng(3).permutation(300).tolist():
        expected = near.nearest(given[place])
        places, similar = held.nearest(place, NEAREST)
        found: Candidate | None = candidate(places, similar, labels[places]) if len(places) else None
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            assert rows[expected.row] == found.row
            assert found.features == pytest.approx(expected.features, abs=1e-5)
        near.add(given[place], int(labels[place]))
        rows.append(place)
        held.add(place)
