"""Confidence: what the signals of an answer are worth, learnt from labelled ones, near the prior where they are few."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.answers import Signals
from protocols.control import Calibration
from swarm.dispatch.calibrate import FEWEST, MANY, confidence, cross_fitted, fit
from swarm.dispatch.explore import weights
from swarm.dispatch.features import FEATURES, features

shares = st.none() | st.floats(0, 1)
logprobs = st.none() | st.floats(-50, 0)
signals = st.builds(
    Signals, p=shares, margin=shares, entropy=shares, similarity=st.none() | st.floats(-1, 1),
    agreement=st.none() | st.sampled_from([0.0, 1.0]), mean_logprob=logprobs, min_logprob=logprobs,
)  # fmt: skip


def drawn(n: int, truth: float, seed: int = 7) -> tuple[list[Signals], list[bool]]:
    """`n` answers whose stated probability is right `truth` times as often, on the log-odds scale."""
    dice = random.Random(seed)
    stated = [dice.uniform(0.5, 0.99) for _ in range(n)]
    right = [1 / (1 + math.exp(-truth * math.log(p / (1 - p)))) for p in stated]
    return [Signals(p=p) for p in stated], [dice.random() < r for r in right]


@pytest.mark.parametrize(
    ("said", "worth"),
    [
        (Signals(p=0.75), 0.75),
        (Signals(mean_logprob=-0.5), math.exp(-0.5)),
        (Signals(agreement=1.0), 1.0),
        (Signals(agreement=0.0), 0.5),
        (Signals(), 1.0),
        (Signals(p=0.99, checks_failed=("in_message",)), 0.0),
    ],
)
def test_without_a_calibration_signals_are_believed(said: Signals, worth: float) -> None:
    """The stated probability first; code that says nothing of itself is sure; a failed check refutes everything."""
    assert confidence(said, None) == pytest.approx(worth)


def test_a_failed_check_refutes_a_calibrated_answer_too() -> None:
    """However sure the map is."""
    assert confidence(Signals(p=0.9, checks_failed=("c",)), Calibration(intercept=9.0, weights={})) == 0.0


@given(signals, st.floats(-100, 100), st.dictionaries(st.sampled_from(FEATURES), st.floats(-50, 50)))
def test_confidence_is_a_probability(said: Signals, intercept: float, weights: dict[str, float]) -> None:
    """Whatever the signals and the map."""
    for calibration in (None, Calibration(intercept=intercept, weights=weights)):
        assert 0.0 <= confidence(said, calibration) <= 1.0
    assert set(features(said)) == set(FEATURES)
    assert all(math.isfinite(value) for value in features(said).values())


def test_few_labels_teach_nothing() -> None:
    """Below the fewest there is no map; failed checks are not counted among them."""
    said, right = drawn(FEWEST, 1.0)
    assert fit(said[:-1], right[:-1]) is None
    failed = [Signals(p=0.9, checks_failed=("c",))] * 50
    assert fit(said[:-1] + failed, right[:-1] + [True] * 50) is None
    learnt = fit(said, right)
    assert learnt is not None
    assert learnt.n_labels == FEWEST


def test_honest_probabilities_stay_as_they_are() -> None:
    """Where what is stated is what is right, the map changes little."""
    learnt = fit(*drawn(400, 1.0))
    for p in (0.6, 0.8, 0.95):
        assert confidence(Signals(p=p), learnt) == pytest.approx(p, abs=0.06)


def test_overconfidence_is_seen_through() -> None:
    """A tier that states more than it keeps is believed less, and the order of its answers stays."""
    learnt = fit(*drawn(400, 0.2))
    worth = [confidence(Signals(p=p), learnt) for p in (0.6, 0.8, 0.95)]
    assert worth == sorted(worth)
    assert worth[-1] < 0.75


def test_certainty_that_is_often_wrong_is_seen_through_by_few_labels() -> None:
    """Two in three of the answers that call themselves certain are right, and that is what they are worth."""
    said = [Signals(p=0.9999999)] * 60 + [Signals(p=0.6)] * 30
    right = [i % 3 > 0 for i in range(60)] + [i % 2 > 0 for i in range(30)]
    learnt = fit(said, right)
    assert confidence(said[0], learnt) == pytest.approx(2 / 3, abs=0.05)
    assert confidence(said[-1], learnt) == pytest.approx(1 / 2, abs=0.05)


@pytest.mark.parametrize("right", [True, False])
def test_a_tier_that_is_always_right_or_never_has_a_finite_map(right: bool) -> None:
    """Separable labels do not drive the weights to infinity: one surprise is always possible."""
    said, _ = drawn(60, 1.0)
    learnt = fit(said, [right] * 60)
    assert learnt is not None
    assert learnt.accuracy == float(right)
    worth = confidence(Signals(p=0.9), learnt)
    assert (0.9 < worth < 1.0) if right else (0.0 < worth < 0.2)


@given(st.lists(st.tuples(signals, st.booleans()), min_size=FEWEST, max_size=40))
def test_any_labels_give_a_map_or_none(labelled: list[tuple[Signals, bool]]) -> None:
    """Signals that never vary, contradict each other or are missing do not break the fit."""
    learnt = fit([said for said, _ in labelled], [right for _, right in labelled])
    assert learnt is not None
    assert math.isfinite(learnt.intercept)
    assert all(math.isfinite(weight) for weight in learnt.weights.values())
    assert set(learnt.weights) <= set(FEATURES)


def bent(n: int, seed: int = 3) -> tuple[list[Signals], list[bool]]:
    """Answers of which at most nine in ten are right however sure they are: no logistic map has that shape."""
    dice = random.Random(seed)
    stated = [dice.choice((dice.uniform(0.5, 0.9), dice.uniform(0.9, 0.9999))) for _ in range(n)]
    return [Signals(p=p) for p in stated], [dice.random() < min(0.9, p) for p in stated]


def test_many_labels_correct_the_shape_of_the_map() -> None:
    """Where certainty has a ceiling, the surest answers are believed no more than they are right."""
    labelled = bent(2000)
    learnt = fit(*labelled)
    assert learnt is not None and learnt.knots
    straight = Calibration(intercept=learnt.intercept, weights=learnt.weights)
    sure = [Signals(p=p) for p in (0.99, 0.999, 0.9998)]
    misses = [max(abs(confidence(s, c) - 0.9) for s in sure) for c in (learnt, straight)]
    assert misses[0] < 0.04 < misses[1]


def test_few_labels_leave_the_map_logistic() -> None:
    """Below `MANY` labels there is nothing to bend it by."""
    few, many = fit(*bent(MANY - 1)), fit(*bent(MANY))
    assert few is not None and many is not None
    assert not few.knots
    assert many.knots


@given(st.integers(0, 10_000), st.floats(0.2, 3.0), st.lists(st.floats(0.001, 0.999), min_size=2, max_size=20))
def test_the_correction_keeps_the_order_of_answers(seed: int, truth: float, stated: list[float]) -> None:
    """Knots rise from 0 to 1, and of two answers the surer one stays the surer."""
    learnt = fit(*drawn(MANY, truth, seed))
    assert learnt is not None
    for before, after in itertools.pairwise(learnt.knots):
        assert before[0] < after[0]
        assert before[1] <= after[1]
    assert (learnt.knots[0][0], learnt.knots[-1][0]) == (0.0, 1.0)
    straight = Calibration(intercept=learnt.intercept, weights=learnt.weights)
    in_order = sorted((Signals(p=p) for p in stated), key=lambda s: confidence(s, straight))
    worth = [confidence(s, learnt) for s in in_order]
    assert worth == pytest.approx(sorted(worth), abs=1e-12)
    assert all(0.0 <= w <= 1.0 for w in worth)


@pytest.mark.parametrize("n", [30, 300])
def test_no_answer_is_judged_by_a_map_that_saw_its_label(n: int) -> None:
    """Its own label turned round, an answer's cross-fitted confidence is what it was."""
    said, right = drawn(n, 0.5)
    sure = cross_fitted(said, right)
    for i in (0, n // 2, n - 1):
        turned = [r != (at == i) for at, r in enumerate(right)]
        assert cross_fitted(said, turned)[i] == sure[i]
        assert cross_fitted(said, turned) != sure


def test_agreement_is_weighed_by_what_it_is_worth() -> None:
    """Where it tells right from wrong it counts for much, where it does not for little."""
    dice = random.Random(5)
    right = [dice.random() < 0.6 for _ in range(400)]
    telling = fit([Signals(p=0.6, agreement=float(dice.random() < (0.9 if r else 0.3))) for r in right], right)
    idle = fit([Signals(p=0.6, agreement=float(dice.random() < 0.5)) for _ in right], right)
    assert telling is not None and idle is not None
    assert telling.weights["agreement"] > 1.0
    assert abs(idle.weights["agreement"]) < 0.3


def test_weights_undo_a_sample_that_leans() -> None:
    """Of the sure answers a tenth is labelled, of the others all; weighed by ten, the share of right ones is true."""
    said, right = drawn(4000, 1.0)
    dice = random.Random(1)
    chances = [0.1 if s.p is not None and s.p > 0.75 else 1.0 for s in said]
    seen = [i for i, chance in enumerate(chances) if dice.random() < chance]
    sample = [said[i] for i in seen], [right[i] for i in seen]
    leaning, weighed = fit(*sample), fit(*sample, weights=weights([chances[i] for i in seen]))
    assert leaning is not None and leaning.accuracy is not None
    assert weighed is not None and weighed.accuracy is not None and weighed.n_effective is not None
    true = sum(right) / len(right)
    assert abs(weighed.accuracy - true) < 0.02 < abs(leaning.accuracy - true)
    assert weighed.n_effective < weighed.n_labels


def test_equal_weights_change_nothing() -> None:
    """Only their proportions count."""
    plain, weighed = fit(*drawn(300, 0.5)), fit(*drawn(300, 0.5), weights=[7.0] * 300)
    assert plain is not None and weighed is not None
    assert weighed.n_effective == pytest.approx(300)
    for p in (0.6, 0.8, 0.95):
        assert confidence(Signals(p=p), weighed) == pytest.approx(confidence(Signals(p=p), plain))
