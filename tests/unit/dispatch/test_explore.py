"""Shadowing: which accepted answers are looked behind, and what labels found that way are worth."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.dispatch.explore import (
    MOST_WEIGHT,
    clipped,
    effective,
    in_plain_sample,
    propensity,
    shadowed,
    uniform,
    weights,
)

TASKS = [f"t-{i}" for i in range(20_000)]


@pytest.mark.parametrize("epsilon", [0.0, 0.02, 0.3, 1.0])
def test_the_share_that_is_shadowed_is_epsilon(epsilon: float) -> None:
    """Over many tasks."""
    share = sum(shadowed(task, "intent", epsilon) for task in TASKS) / len(TASKS)
    assert share == pytest.approx(epsilon, abs=4 * (epsilon * (1 - epsilon) / len(TASKS)) ** 0.5)


def test_a_replay_decides_the_same_and_another_seed_does_not() -> None:
    """Steps and seeds of one task are drawn independently of each other."""
    assert uniform("t-1", "intent", 3) == 0.5982180609584472
    of = {key: {t for t in TASKS if shadowed(t, *key)} for key in (("a", 0.1, 0), ("b", 0.1, 0), ("a", 0.1, 1))}
    one, other, reseeded = of.values()
    for both in (one & other, one & reseeded):
        assert len(both) / len(TASKS) == pytest.approx(0.01, abs=0.003)


def test_who_is_shadowed_at_a_small_share_is_shadowed_at_a_larger() -> None:
    """So that raising it loses nothing that was bought."""
    assert all(shadowed(t, "s", 0.2) for t in TASKS[:5000] if shadowed(t, "s", 0.05))


def test_weights_are_one_over_the_chance_to_be_seen() -> None:
    """Escalated answers are always seen; very rare ones count no more than the most."""
    assert weights([propensity(False, 0.1), propensity(True, 0.1)]) == [1.0, 10.0]
    assert weights([1e-6, 0.5]) == [MOST_WEIGHT, 2.0]
    assert clipped([1e-6, 0.5]) == 1


@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
def test_a_plain_sample_has_the_same_chance_for_all(floor: float) -> None:
    """Those that were seen anyway are thinned to the least chance that any had; where some had none, to nothing."""
    for chance in (floor or 0.1, 1.0):
        share = sum(in_plain_sample(task, "s", chance, floor) for task in TASKS) / len(TASKS)
        assert share * chance == pytest.approx(floor, abs=0.01)


def test_the_coin_that_thins_is_not_the_one_that_looked() -> None:
    """Else the escalated ones left in would be those that would have been looked behind, had they been kept."""
    looked = {task for task in TASKS if shadowed(task, "s", 0.1)}
    thinned = {task for task in TASKS if in_plain_sample(task, "s", 1.0, 0.1)}
    assert len(looked & thinned) / len(TASKS) == pytest.approx(0.01, abs=0.003)


@pytest.mark.parametrize("wrong", [0.0, -0.5, 1.5, float("nan")])
def test_a_chance_that_is_none_is_refused(wrong: float) -> None:
    """It names the value."""
    with pytest.raises(ValueError, match=f"propensity is {wrong}"):
        weights([0.5, wrong])


def test_weighed_labels_tell_the_truth_about_all_answers() -> None:
    """Sure answers are right oftener and seldom seen; the weighed share of right ones is that of all."""
    dice = random.Random(2)
    accepted = [dice.random() < 0.8 for _ in TASKS]
    right = [dice.random() < (0.95 if kept else 0.4) for kept in accepted]
    seen = [i for i, kept in enumerate(accepted) if not kept or shadowed(TASKS[i], "s", 0.1)]
    found = weights([propensity(accepted[i], 0.1) for i in seen])
    weighed = sum(w * right[i] for w, i in zip(found, seen, strict=True)) / sum(found)
    assert weighed == pytest.approx(sum(right) / len(right), abs=0.02)
    assert sum(right[i] for i in seen) / len(seen) < weighed - 0.1


@given(st.lists(st.floats(0.1, 50), min_size=1, max_size=50))
def test_weighed_labels_are_worth_no_more_than_there_are(given_weights: list[float]) -> None:
    """And as many where all weigh the same."""
    assert 0.99 <= effective(given_weights) <= len(given_weights) + 1e-6
    assert effective([3.0] * len(given_weights)) == pytest.approx(len(given_weights))
