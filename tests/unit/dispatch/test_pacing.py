"""The shadow price: a budget that lasts as long as the work."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.dispatch.pacing import Offered, Pacer, pacer

PRICE = 1_000.0  # micro-dollars
ORDERS = {
    "random": None,
    "best first": lambda o: -o.gain_usd,
    "best last": lambda o: o.gain_usd,
}  # fmt: skip


def drawn(n: int, seed: int, scale: float = 1.0) -> list[Offered]:
    """Offers that pay up to eight times their price, some of them nothing."""
    dice = random.Random(seed)
    return [Offered(scale * dice.uniform(-0.001, 0.008), PRICE) for _ in range(n)]


def ordered(seed: int, order: str) -> list[Offered]:
    offers = drawn(200, seed)
    key: Callable[[Offered], float] | None = ORDERS[order]
    return offers if key is None else sorted(offers, key=key)


def won(offers: list[Offered], budget: float, pace: Pacer | None) -> tuple[float, float]:
    """Gain in dollars and money left; without a pacer first come, first served."""
    gain, left = 0.0, budget
    for i, offered in enumerate(offers):
        price = 0.0 if pace is None else pace.price(left, len(offers) - i)
        taken = offered.yields > 1.0 + price and offered.micro_usd <= left
        if pace is not None:
            pace.observe(offered, offered.gain_usd if taken else None)
        if taken:
            gain, left = gain + offered.gain_usd, left - offered.micro_usd
    return gain, left


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("seed", range(5))
def test_a_paced_batch_gains_no_less_than_first_come_first_served(order: str, seed: int) -> None:
    """In any order, for the same money; 2% is what may be lost where the best come first."""
    offers, budget = ordered(seed, order), 50 * PRICE
    paced, served = (won(offers, budget, pace)[0] for pace in (pacer(drawn(200, 99)), None))
    assert paced >= 0.98 * served


@pytest.mark.parametrize("seed", range(5))
def test_in_random_order_it_comes_near_the_best_that_hindsight_could_buy(seed: int) -> None:
    """Nine tenths of it and more; first come, first served gets about two thirds."""
    offers = ordered(seed, "random")
    best = sum(sorted((o.gain_usd for o in offers), reverse=True)[:50])
    assert won(offers, 50 * PRICE, pacer(drawn(200, 99)))[0] > 0.9 * best


@pytest.mark.parametrize("order", ORDERS)
def test_the_budget_is_not_left_over(order: str) -> None:
    """There was more to buy than money, so no more than a few prices may remain."""
    assert won(ordered(1, order), 50 * PRICE, pacer(drawn(200, 99)))[1] <= 5 * PRICE


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_a_wrong_prior_is_unlearnt(scale: float) -> None:
    """Offers that are worse or better than expected are paced by what is seen of them."""
    offers = drawn(400, 5, scale)
    paced, served = (won(offers, 80 * PRICE, pace)[0] for pace in (pacer(drawn(200, 99)), None))
    assert paced > served


def test_without_a_prior_it_is_learnt_from_nothing() -> None:
    """Still better than first come, first served."""
    offers = drawn(400, 5)
    assert won(offers, 80 * PRICE, pacer())[0] > won(offers, 80 * PRICE, None)[0]


def test_nothing_is_refused_that_the_money_left_covers() -> None:
    """The price is 0 when all that pays can be bought anyway."""
    assert pacer(drawn(200, 99)).price(100 * PRICE, 100) == 0.0


@given(st.floats(1, 1e6), st.floats(1, 1e6), st.integers(1, 1000))
def test_more_money_never_makes_it_dearer(left: float, more: float, tasks: int) -> None:
    """For the same work."""
    pace = pacer(drawn(50, 99))
    assert pace.price(left + more, tasks) <= pace.price(left, tasks)


def test_equal_offers_are_served_first_come() -> None:
    """No threshold can tell them apart, so none is refused for being average."""
    same = [Offered(0.004, PRICE)] * 100
    assert won(same, 20 * PRICE, pacer(same))[1] == 0.0


def test_the_work_is_guessed_from_the_time_where_nobody_counts_it() -> None:
    """50 tasks in 10 seconds promise 200 in the 40 that are left."""
    pace = pacer(drawn(200, 99))
    for offered in drawn(50, 5):
        pace.observe(offered)
    guessed = pace.price(20 * PRICE, seconds_left=40.0, seconds_gone=10.0)
    assert guessed == pace.price(20 * PRICE, 200) > 0.0


def test_with_no_idea_of_the_work_nothing_is_refused() -> None:
    """No number of tasks, no time: λ is 0."""
    assert pacer(drawn(200, 99)).price(1.0) == 0.0


def test_escalations_that_bring_more_than_foreseen_lower_the_price() -> None:
    """Then the order brings the best first, or everything is better: both ways now is a good time."""
    hot, cold = pacer(drawn(200, 99)), pacer(drawn(200, 99))
    for offered in drawn(30, 5):
        hot.observe(offered, 3 * abs(offered.gain_usd))
        cold.observe(offered, offered.gain_usd)
    assert hot.price(20 * PRICE, 200) < cold.price(20 * PRICE, 200)


def test_its_memory_survives_json() -> None:
    """It goes on where it was after a restart."""
    pace = pacer(drawn(200, 99))
    won(drawn(50, 5), 20 * PRICE, pace)
    again = msgspec.json.decode(msgspec.json.encode(pace), type=Pacer)
    assert again.price(9 * PRICE, 60) == pace.price(9 * PRICE, 60)
