"""The promise of a semantic cache: what is let through can never be shown to break it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.dispatch.cache.gate import MOST_LOOKS, Gate, Standing

requests = st.tuples(st.floats(0, 1), st.floats(0, 1, exclude_max=True), st.booleans())  # risk, coin, wrong


@given(st.lists(requests, max_size=60), st.integers(0, 10_000))
def test_a_reuse_always_leaves_the_bound_within_the_budget(
    stream: list[tuple[float, float, bool]], before: int
) -> None:
    """Whatever the risks said, the coins and the truth: after a reuse the bound is at most `error` of the requests."""
    gate = Gate(0.02, 0.95, Standing(before))
    for risk, coin, wrong in stream:
        chance = gate.chance(risk)
        assert 0.0 < chance <= 1.0
        if coin >= chance:
            assert chance <= MOST_LOOKS
            assert gate.audit.bound() <= 0.02 * gate.requests
        else:
            gate.audit.looked(chance)
            if not wrong:
                gate.audit.right(chance)


def test_nothing_is_reused_before_there_is_a_budget() -> None:
    """However safe it looks: what is promised holds from the first request on."""
    gate = Gate(0.02)
    assert {gate.chance(0.0) for _ in range(300)} == {1.0}


def test_looks_become_rarer_where_nothing_is_found() -> None:
    """The chance of a look at a safe reuse falls with the requests, down to the least there is."""
    gate = Gate(0.02)
    chances = [gate.chance(0.0) for _ in range(100_000)]
    assert chances[1_000] > chances[5_000] > chances[30_000] >= chances[-1]
    assert chances == sorted(chances, reverse=True)
    assert chances[-1] < 0.01


def test_a_riskier_reuse_is_looked_at_more_often_and_then_not_made() -> None:
    """Up to a risk that goes by how much of the budget is free."""
    chances = [Gate(0.02, standing=Standing(20_000)).chance(risk) for risk in (0.0, 0.02, 0.05, 0.4)]
    assert chances == sorted(chances)
    assert chances[0] < chances[-1] == 1.0


def test_wrong_reuses_that_are_found_close_it() -> None:
    """Where what is reused is mostly wrong, the looks find out, and hardly anything is reused any more."""
    dice, gate, reused, wrong = random.Random(5), Gate(0.02), 0, 0
    for _ in range(20_000):
        chance = gate.chance(0.01)
        if dice.random() >= chance:
            reused += 1
            wrong += 1
        else:
            gate.audit.looked(chance)
    assert wrong <= 0.02 * 20_000
    assert reused < 400


@pytest.mark.parametrize("error", [0.0, 1.0])
def test_an_error_outside_0_to_1_is_refused(error: float) -> None:
    """Nothing could be reused, or nothing would be promised."""
    with pytest.raises(ValueError, match="must lie between"):
        Gate(error)
