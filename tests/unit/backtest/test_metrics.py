import numpy as np
import pytest

from swarm.backtest.bootstrap import interval, paired
from swarm.backtest.curve import Curve
from swarm.backtest.metrics import apgr, coin, cpt, deciles, dollar_area, measured, oracle, usd_at_best_single

WEAK = np.array([1, 0, 0, 1], float)
STRONG = np.array([1, 1, 1, 0], float)  # it breaks the last one


def test_random_router_wins_half_of_the_gap():
    """With equal scores APGR is one half and half of the gap costs half of the calls, exactly."""
    assert apgr(coin(4), WEAK, STRONG) == pytest.approx(0.5)
    assert cpt(coin(4), WEAK, STRONG, 0.5) == 0.5


def test_apgr_by_hand():
    """Gains first, the harmless one next, the broken one last: PGR is 0, 1, 2, 2, 1."""
    assert apgr([2, 4, 3, 1], WEAK, STRONG) == pytest.approx((0.5 + 1.5 + 2 + 1.5) / 4)


def test_cpt_is_the_first_crossing():
    """A curve that passes the level, falls below it and comes back has crossed it where it first did."""
    assert cpt([2, 4, 3, 1], WEAK, STRONG, 1.0) == 0.25
    assert cpt([1, 2, 3, 4], WEAK, STRONG, 0.8) == 0.75


def test_no_router_beats_the_oracle():
    """Gains sorted by themselves give the largest area of all orders."""
    random = np.random.default_rng(1)
    best = apgr(oracle(WEAK, STRONG), WEAK, STRONG)
    assert all(apgr(random.permutation(4), WEAK, STRONG) <= best + 1e-12 for _ in range(50))


def test_deciles_come_close_to_the_exact_area():
    """RouteLLM's eleven thresholds and every prefix agree within 0.01 for an ordinary router on many queries."""
    random = np.random.default_rng(0)
    hard = random.random(4000)
    weak, strong = (random.random(4000) > hard).astype(float), (random.random(4000) > hard / 3).astype(float)
    scores = hard + random.normal(0, 0.3, 4000)
    found = measured(scores, weak, strong)
    assert found.apgr_deciles == pytest.approx(found.apgr, abs=0.01)
    assert len(deciles(scores, weak, strong).cost) == 12  # the eleven and nobody at all


def test_without_a_gap_there_is_no_share_of_it():
    """Where the strong model is no better the measures are undefined, which is said."""
    with pytest.raises(ValueError, match="no gap"):
        apgr([1, 2], [1, 1], [1, 0])


def test_dollar_area_with_and_without_a_coin():
    """Between 0 and 2 dollars: the hull of a step is a line, the points as they are hold their own lines."""
    curve = Curve.through([0, 1, 2], [0.0, 0.0, 1.0])
    assert dollar_area(curve, 0, 2) == pytest.approx(0.5)
    assert dollar_area(curve, 0, 2, hull=False) == pytest.approx(0.25)


def test_dollars_at_the_best_single_models_quality():
    """The hull's price for it: halfway up a line of two dollars."""
    assert usd_at_best_single(Curve.through([0, 2], [0.4, 0.8]), [0.5, 0.6]) == pytest.approx(1.0)


def test_bootstrap_interval_holds_the_mean():
    """The interval of a mean of 400 coin tosses is about two standard errors to each side."""
    tosses = (np.random.default_rng(3).random(400) < 0.5).astype(float)
    found = interval(lambda at: float(tosses[at].mean()), 400)
    assert found.value == tosses.mean()
    assert 0.03 < found.value - found.low < 0.07
    assert 0.03 < found.high - found.value < 0.07


def test_pairs_are_resampled_together():
    """A router that is better by the same on every query is surely better, however much the queries differ."""
    base = np.random.default_rng(4).normal(0, 10, 50)
    found = paired(lambda at: float(base[at].mean() + 1), lambda at: float(base[at].mean()), 50, resamples=100)
    assert found.low == pytest.approx(1)
    assert found.excludes_zero


def test_resamples_without_a_value_are_left_out():
    """A resample on which the statistic is undefined does not spoil the interval."""

    def fickle(at):
        if at[0] == 0:
            raise ValueError("undefined")
        return 2.0

    found = interval(lambda at: 2.0 if len(set(at)) == 5 else fickle(at), 5, resamples=50)
    assert (found.low, found.high) == (2.0, 2.0)
