"""Confidence: what the signals of an answer are worth, learnt from labelled ones, near the prior where they are few."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.answers import Signals
from protocols.control import Calibration
from swarm.dispatch.calibrate import FEWEST, confidence, fit
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
