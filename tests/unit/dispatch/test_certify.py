"""Certified thresholds: the promise is kept, or nothing is promised and it is said what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.dispatch.binomial import fewest, lower_bound, tail, upper_bound
from swarm.dispatch.certify import Certificate, certify, certify_ladder, quality_target

RISK = 0.05
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
counts = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
risks = st.floats(0.001, 0.3)


@given(counts, st.floats(0.0, 1.0))
def test_the_tail_is_the_binomial_one(count: tuple[int, int], p: float) -> None:
    """As scipy computes it."""
    from scipy.stats import binom

    assert tail(*count, p) == pytest.approx(binom.cdf(*count, p), rel=1e-7, abs=1e-12)


@given(counts, risks)
def test_bounds_are_those_of_clopper_and_pearson(count: tuple[int, int], risk: float) -> None:
    """As quantiles of the beta distribution give them."""
    from scipy.stats import beta

    k, n = count
    assert upper_bound(k, n, risk) == pytest.approx(1.0 if k == n else beta.ppf(1 - risk, k + 1, n - k), abs=1e-9)
    assert lower_bound(k, n, risk) == pytest.approx(0.0 if k == 0 else beta.ppf(risk, k, n - k + 1), abs=1e-9)


def answers(n: int, dice: np.random.Generator) -> tuple[list[float], list[bool]]:
    """Answers whose chance to be right is their confidence."""
    sure = dice.beta(6.0, 0.6, n)
    return sure.tolist(), (dice.random(n) < sure).tolist()


POPULATION = np.sort(np.random.default_rng(0).beta(6.0, 0.6, 200_000))


def true_error(threshold: float) -> float:
    """Of all that reaches the threshold."""
    return float(1 - POPULATION[np.searchsorted(POPULATION, threshold) :].mean())


@pytest.mark.parametrize("error", [0.05, 0.1])
@pytest.mark.parametrize("ties", [None, 20])
def test_the_promise_is_broken_no_oftener_than_promised(error: float, ties: int | None) -> None:
    """Of 200 certificates at most 5% (and what chance adds) let through more errors, with equal confidences too."""
    dice = np.random.default_rng(1)
    broken, coverage = 0, []
    for _ in range(200):
        sure, right = answers(400, dice)
        if ties:
            sure = [np.floor(s * ties) / ties for s in sure]
        found = certify(sure, right, error)
        coverage.append(found.coverage if found.threshold is not None else 0.0)
        broken += found.threshold is not None and true_error(found.threshold) > error
    assert broken <= 200 * RISK + 3 * (200 * RISK * (1 - RISK)) ** 0.5
    assert np.mean(coverage) > 0.2


def test_a_certificate_says_what_it_stands_on() -> None:
    """What it counts is what the threshold keeps of the sample, and its bound is within the target."""
    sure, right = answers(1000, np.random.default_rng(2))
    found = certify(sure, right, 0.1)
    assert found.threshold is not None
    kept = [ok for s, ok in zip(sure, right, strict=True) if s >= found.threshold]
    assert (found.n, found.accepted, found.errors) == (1000, len(kept), len(kept) - sum(kept))
    assert found.errors / found.accepted < found.bound <= 0.1
    assert found.coverage == found.accepted / 1000
    assert found.missing == 0


def test_one_early_mistake_does_not_end_it() -> None:
    """A chain that begins at few answers stops at the surest one being wrong; another begins later."""
    sure = [1 - i / 2000 for i in range(1000)]
    found = certify(sure, [False] + [True] * 999, 0.05)
    assert found.threshold is not None
    assert found.coverage == 1.0


def test_the_first_mistake_after_the_start_is_leapt_over() -> None:
    """A few labels go all to one chain: 59 without a mistake begin it, and one more is forgiven among 93."""
    sure, n = [1 - i / 2000 for i in range(120)], fewest(0.05, RISK)
    assert certify(sure, [i != n for i in range(120)], 0.05).coverage == 1.0
    assert certify(sure, [i not in (n, n + 1) for i in range(120)], 0.05).accepted == n
    assert certify(sure, [i != n - 1 for i in range(120)], 0.05).threshold is None


def test_what_cannot_be_shown_is_not_promised() -> None:
    """Too few labels: nothing is certified, and the fewest that could do it are said to be missing."""
    found = certify([0.9] * 20, [True] * 20, 0.02)
    assert found.threshold is None
    assert found.missing == fewest(0.02, RISK) - 20
    assert certify([], [], 0.02) == Certificate(None, 0.02, 0.95, 0, 0, 0, 1.0, 0.0, fewest(0.02, RISK))


@given(st.integers(20, 120), st.integers(0, 3))
def test_the_missing_labels_would_do(n: int, wrong: int) -> None:
    """With so many more of the same kind there is a certificate."""
    right = [i >= wrong for i in range(n)]
    before = certify([0.9] * n, right, 0.1)
    if before.missing:
        more = n + before.missing
        after = certify([0.9] * more, [i >= more * wrong // n for i in range(more)], 0.1)
        assert after.threshold == 0.9


def test_where_no_number_of_labels_helps_none_is_named() -> None:
    """One in four of every kind of answer is wrong."""
    found = certify([i / 400 for i in range(400)], [i % 4 > 0 for i in range(400)], 0.05)
    assert (found.threshold, found.missing) == (None, None)


def test_a_grid_fixed_elsewhere_is_tried_as_given() -> None:
    """From its highest threshold down, and nothing else."""
    sure, right = answers(2000, np.random.default_rng(3))
    assert certify(sure, right, 0.05, grid=[0.5, 0.9, 0.95]).threshold == 0.9
    assert certify(sure, right, 0.05, grid=[0.5]).threshold is None
    assert certify(sure, right, 0.05, grid=[]).threshold is None


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 5.0])
def test_a_promise_of_everything_or_nothing_is_refused(value: float) -> None:
    """Targets and levels lie between 0 and 1."""
    with pytest.raises(ValueError, match=f"error is {value}"):
        certify([0.5], [True], value)
    with pytest.raises(ValueError, match=f"confidence_level is {value}"):
        certify([0.5], [True], 0.1, value)
    with pytest.raises(ValueError, match=f"target is {value}"):
        certify_ladder([[(0.5, True)]], value)
    with pytest.raises(ValueError, match=f"share is {value}"):
        quality_target([0.5], [True], [True], value)


def test_quality_stays_near_the_strong_models() -> None:
    """In at most 5% of 200 samples (and what chance adds) less than 95% of its quality is left; much stays local."""
    dice, broken, kept = np.random.default_rng(4), 0, []
    for _ in range(200):
        sure = dice.beta(3.0, 0.8, 600)
        weak, strong = dice.random(600) < sure, dice.random(600) < 0.9
        found = quality_target(sure.tolist(), weak.tolist(), strong.tolist(), 0.95)
        threshold = 2.0 if found.threshold is None else found.threshold
        many = dice.beta(3.0, 0.8, 20_000)
        quality = np.where(many >= threshold, many, 0.9).mean()
        broken += bool(quality < 0.95 * 0.9)
        kept.append(found.coverage)
        assert found.errors <= found.accepted
    assert broken <= 200 * RISK + 3 * (200 * RISK * (1 - RISK)) ** 0.5
    assert np.mean(kept) > 0.2


def test_a_strong_model_that_is_never_right_permits_no_loss() -> None:
    """There is no quality to keep a share of, and so nothing is certified."""
    assert quality_target([0.9] * 100, [True] * 100, [False] * 100, 0.9).threshold is None


def test_a_ladder_of_one_tier_is_that_tier() -> None:
    """The same certificate, for an error and for a quality."""
    sure, right = answers(500, np.random.default_rng(5))
    strong = [i % 10 > 0 for i in range(500)]
    ladder = [[pair] for pair in zip(sure, right, strict=True)]
    assert certify_ladder(ladder, 0.1) == certify(sure, right, 0.1)
    assert certify_ladder(ladder, 0.9, strong=strong) == quality_target(sure, right, strong, 0.9)


def test_of_a_ladder_the_first_answer_that_is_sure_enough_counts() -> None:
    """A sure mistake of a cheap tier is not undone by the next; what no tier has answered is not kept."""
    early = certify_ladder(
        [[(0.9, False), (0.99, True)]] * 40 + [[(0.2, False), (0.99, True)]] * 160 + [[]] * 100, 0.05
    )
    assert early.threshold == 0.99
    assert (early.n, early.accepted, early.errors) == (300, 200, 0)
    late = certify_ladder([[(0.99, False), (0.99, True)]] * 40 + [[(0.2, False), (0.99, True)]] * 160, 0.05)
    assert (late.threshold, late.accepted, late.errors) == (None, 200, 40)


def test_a_ladder_without_answers_certifies_nothing() -> None:
    """And no number of such labels would."""
    found = certify_ladder([[]] * 50, 0.05)
    assert (found.threshold, found.missing) == (None, None)


def test_the_benchmark_sees_a_promise_broken_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judged by all of the population: kept where confidence is honest, broken where a certificate is a lie."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    from recorded import guarantee
    from recorded.scored import Scored

    sure, right = (np.array(column) for column in answers(2000, np.random.default_rng(6)))
    row = guarantee.measured(Scored("honest", sure, right), 0.1, 40)
    assert row.certified == 1.0
    assert row.broken <= 0.15
    assert 0.5 < row.coverage <= row.possible
    monkeypatch.setattr(guarantee, "_certified", lambda *_: (0.0, 0))
    assert guarantee.measured(Scored("all", sure, sure > 0.8), 0.1, 10).broken == 1.0
