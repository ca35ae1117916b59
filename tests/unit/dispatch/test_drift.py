"""The alarm: fair while the promise holds, soon when it does not."""

from __future__ import annotations

import random
import statistics
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.dispatch.drift import MOST_WEIGHT, STAKES, Drift, Wealth, reserve

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
amounts = st.tuples(*[st.floats(0, 3) for _ in STAKES])
states = st.builds(Wealth, n=st.integers(0, 10**6), staked=amounts)


@given(st.floats(0.001, 0.9), states, st.floats(0.1, 2 * MOST_WEIGHT))
def test_the_game_is_fair_at_the_certified_error(error: float, wealth: Wealth, weight: float) -> None:
    """Whatever the wealth, its expectation after the next answer is what it is now: a martingale."""
    after = {}
    for wrong in (True, False):
        drift = Drift(error, 1e300, wealth)
        drift.observe(wrong, weight)
        after[wrong] = drift.evidence
        assert all(staked >= 0.0 for staked in drift.wealth.staked)
    assert error * after[True] + (1 - error) * after[False] == pytest.approx(Drift(error, wealth=wealth).evidence)


def test_it_begins_with_one() -> None:
    """So that twenty is twenty times as much."""
    assert Drift(0.05).evidence == 1.0
    assert reserve(10**9) > 0.2


def streamed(error: float, rates: list[float], seed: int) -> int | None:
    """At which answer the alarm is raised, where each is wrong at its own rate."""
    dice, drift = random.Random(seed), Drift(error)
    for i, rate in enumerate(rates):
        drift.observe(dice.random() < rate)
        if drift.alarm:
            return i
    return None


@pytest.mark.parametrize("error", [0.02, 0.05])
def test_ten_points_more_are_seen_within_300_answers(error: float) -> None:
    """In the median of 40 streams, after 1,000 answers at the certified error."""
    rates = [error] * 1000 + [error + 0.1] * 1000
    seen = [streamed(error, rates, seed) for seed in range(40)]
    assert statistics.median(2000 if at is None else at for at in seen if at is None or at >= 1000) < 1300


def test_a_tier_better_than_promised_is_still_watched() -> None:
    """Good times do not use up what it takes to see bad ones."""
    seen = [streamed(0.05, [0.01] * 3000 + [0.15] * 1000, seed) for seed in range(20)]
    assert all(at is not None and at >= 3000 for at in seen)
    assert statistics.median(at for at in seen if at is not None) < 3300


def test_after_the_alarm_nothing_more_is_observed() -> None:
    """It stays raised, and its evidence what it was."""
    drift = Drift(0.02)
    while not drift.alarm:
        drift.observe(True)
    raised = drift.wealth
    drift.observe(False)
    assert drift.alarm
    assert drift.wealth == raised


@given(st.lists(st.tuples(st.booleans(), st.floats(0.1, 2.0)), max_size=30), st.integers(0, 30))
def test_it_can_be_stopped_and_taken_up_again(seen: list[tuple[bool, float]], cut: int) -> None:
    """Its wealth, written down and read, goes on as if nothing had been."""
    whole, first = Drift(0.1), Drift(0.1)
    for wrong, weight in seen:
        whole.observe(wrong, weight)
    for wrong, weight in seen[:cut]:
        first.observe(wrong, weight)
    second = Drift(0.1, wealth=msgspec.json.decode(msgspec.json.encode(first.wealth), type=Wealth))
    for wrong, weight in seen[cut:]:
        second.observe(wrong, weight)
    assert second.wealth == whole.wealth


@pytest.mark.parametrize(("error", "alarm_at"), [(0.0, 20.0), (1.0, 20.0), (0.05, 1.0), (0.05, float("nan"))])
def test_a_watch_over_nothing_is_refused(error: float, alarm_at: float) -> None:
    """An error outside (0, 1), or an alarm that is raised from the start."""
    with pytest.raises(ValueError, match="must lie"):
        Drift(error, alarm_at)


def test_many_streams_at_once_have_the_same_wealth_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the benchmark measures is what runs."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    from recorded.drift import Watched

    wrong = np.random.default_rng(3).random((400, 5)) < 0.06
    many, ones = Watched(0.05, 5), [Drift(0.05, 1e9) for _ in range(5)]
    many.observe(wrong)
    for line in wrong:
        for drift, found in zip(ones, line, strict=True):
            drift.observe(bool(found))
    assert many.evidence == pytest.approx([drift.evidence for drift in ones])
    assert many.peak == pytest.approx([drift.wealth.peak for drift in ones])
