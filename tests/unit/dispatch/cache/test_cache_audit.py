"""What looking at a share of the reuses proves about the others, whatever comes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.dispatch.cache.audit import BETS, CHANCES, Audit, Evidence


@given(st.integers(0, len(BETS) - 1), st.floats(0.01, 0.99))
def test_every_bet_in_the_game_is_fair(bet: int, chance: float) -> None:
    """Its wealth, by the coin alone, is expected to be what it was: 1 + b if a wrong reuse escapes, less if caught."""
    audit = Audit()
    audit.stake(chance)
    if bet >= audit.evidence.live:
        return
    audit.looked(chance)
    caught = math.exp(audit.evidence.logs[bet])
    assert (1 - chance) * (1 + BETS[bet]) + chance * caught == pytest.approx(1.0)
    assert caught > 0.0


@given(st.lists(st.tuples(st.floats(0.05, 1.0), st.booleans()), max_size=30))
def test_what_was_right_leaves_no_trace(looks: list[tuple[float, bool]]) -> None:
    """A look that finds a right answer changes nothing, and until that is known it counts as one that was caught."""
    audit, only_wrong = Audit(), Audit()
    for chance, wrong in looks:
        for each in (audit, only_wrong):
            each.stake(chance)
        before = audit.bound()
        audit.looked(chance)
        assert audit.bound() >= before
        if wrong:
            only_wrong.looked(chance)
        else:
            audit.right(chance)
    assert audit.evidence.logs == pytest.approx(only_wrong.evidence.logs, abs=1e-9)


def test_fewer_looks_leave_more_in_doubt() -> None:
    """With nothing caught, the bound is about ln(1/α) over the chance of a look, and is narrowest at the start."""
    bounds = []
    for chance in reversed(CHANCES):
        audit = Audit()
        audit.stake(chance)
        assert audit.after(chance) == audit.bound()
        bounds.append(audit.bound())
        assert 3.0 / chance - 10 < audit.bound() < 10 / chance
    assert bounds == sorted(bounds)


def test_the_least_chance_keeps_the_bound() -> None:
    """It is the smallest that does, and one that keeps all bets where none is small enough."""
    audit = Audit()
    for most in (9, 20, 60, 200):
        chance = audit.least(most)
        assert audit.after(chance) <= most
        assert chance == CHANCES[0] or audit.after(CHANCES[CHANCES.index(chance) - 1]) > most
    assert audit.least(1) == CHANCES[-1]


def test_without_looks_nothing_is_known() -> None:
    """A chance too small for every bet leaves no bound worth the name."""
    audit = Audit()
    audit.stake(1e-9)
    assert audit.bound() > 1e9


def escaped_the_bound(adversary: Callable[[random.Random, Audit, int], bool], seed: int) -> bool:
    """Whether the wrong reuses that escaped were ever more than the bound, in 400 requests with falling chances."""
    dice, audit, escaped = random.Random(seed), Audit(0.9), 0
    for i in range(400):
        chance = max(0.05, 0.5 / (1 + i / 40))
        audit.stake(chance)
        wrong = adversary(dice, audit, escaped)
        if dice.random() < chance:
            audit.looked(chance)
            if not wrong:
                audit.right(chance)
        else:
            escaped += wrong
        if escaped > audit.bound():
            return True
    return False


@pytest.mark.parametrize(
    "adversary",
    [
        lambda dice, audit, escaped: True,
        lambda dice, audit, escaped: dice.random() < 0.1,
        lambda dice, audit, escaped: escaped > 0.7 * audit.bound(),  # presses on where it is about to win
    ],
    ids=["always", "sometimes", "late"],
)
def test_the_bound_holds_whoever_chooses_the_requests(adversary: Callable[[random.Random, Audit, int], bool]) -> None:
    """At a level of 90%, of 100 streams at most 10% break it at any time, even for one who sees what we see."""
    assert sum(escaped_the_bound(adversary, seed) for seed in range(100)) <= 10


def test_it_can_be_stopped_and_taken_up_again() -> None:
    """Its evidence is all that it remembers."""
    audit = Audit()
    audit.stake(0.2)
    audit.looked(0.2)
    again = Audit(evidence=Evidence(audit.evidence.logs, audit.evidence.live))
    assert again.bound() == audit.bound() > Audit().bound()


@pytest.mark.parametrize("level", [0.0, 1.0, float("nan")])
def test_a_level_outside_0_to_1_is_refused(level: float) -> None:
    """There is no bound that holds always, and none that never does."""
    with pytest.raises(ValueError, match="must lie between"):
        Audit(level)
