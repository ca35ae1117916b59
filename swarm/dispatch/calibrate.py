"""Signals → P(correct), learnt per specialist and tier from labelled answers, near a prior where they are few.

First a logistic map of several signals. Its prior says that a stated probability is what it says; each label moves the
map away from that, as in penalised (MAP) logistic regression with a Gaussian prior around those weights, and Newton's
method finds the optimum. From `MANY` labels on a monotone, piecewise linear correction of its result follows: isotonic
regression (Zadrozny & Elkan 2002) over bins of like score (Kumar et al. 2019), each drawn to the logistic where it
holds few labels, and fitted on scores of maps that had not seen the label.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from protocols.answers import Signals
from protocols.control import Calibration
from swarm.dispatch.explore import effective
from swarm.dispatch.features import FEATURES, features

PRIOR = {"p": 1.0}  # logit P(correct) = logit p
STRENGTH = 4.0  # about how many labels the prior is worth, per feature
FEWEST = 10  # below this nothing is learnt
MANY = 200  # from here on the logistic is corrected
FOLDS = 5
MOST_BINS, PER_BIN = 20, 25  # of labels of like score
APART = 0.1  # log-odds between two bins, at least: closer ones differ by the fold they were scored in
SHRINK = 20.0  # labels that the logistic is worth in each bin
SLOPE = 0.05  # share of the logistic in the result, so that answers in a flat stretch keep their order

Floats = NDArray[np.float64]


def confidence(signals: Signals, calibration: Calibration | None) -> float:
    """P(correct) of an answer with these signals, 0..1. A failed check makes it 0; code without signals is sure."""
    if signals.checks_failed:
        return 0.0
    if calibration is None:
        return _uncalibrated(signals)
    known = features(signals)
    score = calibration.intercept
    for name, weight in calibration.weights.items():
        score += weight * known[name]
    p = _sigmoid(score)
    return _corrected(p, calibration.knots) if calibration.knots else p


def fit(
    signals: Sequence[Signals], correct: Sequence[bool], weights: Sequence[float] | None = None
) -> Calibration | None:
    """The map that fits these labelled signals, or None when there are fewer than `FEWEST` usable ones.

    `weights` say how often each label counts (`swarm.dispatch.explore.weights`); they are scaled so that the prior
    meets as many labels as they are worth. Answers that failed a check are left out: their confidence is 0.
    """
    rows = [i for i, s in enumerate(signals) if not s.checks_failed]
    if len(rows) < FEWEST:
        return None
    names, x = _table([features(signals[i]) for i in rows])
    y = np.array([float(correct[i]) for i in rows])
    w, worth = np.ones(len(rows)), None
    if weights is not None:
        w = np.array([weights[i] for i in rows])
        worth = effective(w.tolist())
        w *= worth / w.sum()
    theta = _logistic(names, x, y, w)
    knots = _isotonic(_held_out(names, x, y, w), y, w) if (worth or len(rows)) >= MANY else ()
    return Calibration(
        intercept=float(theta[0]),
        weights={name: float(v) for name, v in zip(names, theta[1:], strict=True)},
        n_labels=len(rows),
        accuracy=float(np.average(y, weights=w)),
        knots=knots,
        n_effective=worth,
    )


def cross_fitted(
    signals: Sequence[Signals],
    correct: Sequence[bool],
    folds: int = FOLDS,
    seed: int = 0,
    weights: Sequence[float] | None = None,
) -> list[float]:
    """Each answer's confidence by a map that was fitted on the other folds, so that none judges what it learnt from.

    `weights`: as in `fit`.
    """
    sure = [0.0] * len(signals)
    for train, test in _folds(len(signals), folds, seed):
        counts = None if weights is None else [weights[i] for i in train]
        learnt = fit([signals[i] for i in train], [correct[i] for i in train], counts)
        for i in test:
            sure[i] = confidence(signals[i], learnt)
    return sure


# --- the logistic -----------------------------------------------------------------------------------------------


def _table(known: list[dict[str, float]]) -> tuple[list[str], Floats]:
    """The features that say something here, and one row of them for each answer, after a 1 for the intercept."""
    names = [n for n in FEATURES if any(f[n] != known[0][n] for f in known) or n in PRIOR]
    names = [n for n in names if any(f[n] != 0.0 for f in known)]
    return names, np.array([[1.0, *(f[n] for n in names)] for f in known])


def _logistic(names: list[str], x: Floats, y: Floats, w: Floats) -> Floats:
    prior = np.array([0.0, *(PRIOR.get(n, 0.0) for n in names)])
    return _newton(x, y, w, prior, np.diag([0.1, *(STRENGTH for _ in names)]))


def _newton(x: Floats, y: Floats, w: Floats, prior: Floats, penalty: Floats) -> Floats:
    def loss(at: Floats) -> float:
        z = x @ at
        return float(w @ (np.logaddexp(0.0, z) - y * z) + (at - prior) @ penalty @ (at - prior) / 2)

    theta = prior.copy()
    now = loss(theta)
    for _ in range(50):
        p = _sigmoids(x @ theta)
        gradient = x.T @ (w * (p - y)) + penalty @ (theta - prior)
        hessian = (x.T * (w * p * (1 - p))) @ x + penalty
        step = np.linalg.solve(hessian, gradient)
        # Where everything is said to be certain the curve is flat, and a full step leads far beyond the optimum.
        while (then := loss(theta - step)) > now and np.abs(step).max() >= 1e-8:
            step /= 2
        if np.abs(step).max() < 1e-8:
            break
        theta, now = theta - step, then
    return theta


def _held_out(names: list[str], x: Floats, y: Floats, w: Floats) -> Floats:
    """The logistic's score of each row when fitted on the other folds."""
    scores = np.empty(len(y))
    for train, test in _folds(len(y), FOLDS, seed=0):
        scores[test] = _sigmoids(x[test] @ _logistic(names, x[train], y[train], w[train]))
    return scores


def _folds(n: int, folds: int, seed: int) -> Iterator[tuple[NDArray[np.int_], NDArray[np.int_]]]:
    """Places to fit on and places to score, of each fold; every place is scored once."""
    fold = np.random.default_rng(seed).permutation(n) % folds
    for k in range(folds):
        yield np.flatnonzero(fold != k), np.flatnonzero(fold == k)


# --- the correction ---------------------------------------------------------------------------------------------


def _isotonic(scores: Floats, y: Floats, w: Floats) -> tuple[tuple[float, float], ...]:
    """Knots of the monotone map from the logistic's score to the share of right answers."""
    bins = _bins(scores)
    mass = np.array([w[b].sum() + SHRINK for b in bins])
    x = np.array([np.average(scores[b], weights=w[b]) for b in bins])
    share = np.array([(w[b] @ y[b] + SHRINK * at) / m for b, at, m in zip(bins, x, mass, strict=True)])
    level = _pooled(share, mass)
    seen = [float(scores.min())] if scores.min() < x[0] else []
    at = [0.0, *seen, *x.tolist(), 1.0]
    to = [0.0, *level[: len(seen)], *level, level[-1]]  # beyond what was seen caution: down to nothing, up no further
    return tuple((a, (1 - SLOPE) * t + SLOPE * a) for a, t in zip(at, to, strict=True))


def _bins(scores: Floats) -> list[NDArray[np.int_]]:
    """Places of the scores in ascending bins, each full enough and far enough from the one before."""
    order = np.argsort(scores, kind="stable")
    odds = np.log(scores[order] / (1 - scores[order]))
    size = max(PER_BIN, len(scores) // MOST_BINS)
    starts = [0]
    for i in range(1, len(order) - size + 1):
        if i - starts[-1] >= size and odds[i] - odds[starts[-1]] >= APART and odds[i] > odds[i - 1]:
            starts.append(i)
    return np.split(order, starts[1:])


def _pooled(values: Floats, mass: Floats) -> list[float]:
    """The closest non-decreasing values (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []  # mean, mass, how many values
    for value, weight in zip(values.tolist(), mass.tolist(), strict=True):
        mean, heavy, many = value, weight, 1
        while blocks and blocks[-1][0] >= mean:
            before, its_mass, count = blocks.pop()
            mean = (before * its_mass + mean * heavy) / (its_mass + heavy)
            heavy, many = its_mass + heavy, count + many
        blocks.append((mean, heavy, many))
    return [mean for mean, _, many in blocks for _ in range(many)]


def _corrected(p: float, knots: tuple[tuple[float, float], ...]) -> float:
    i = max(1, bisect_left(knots, (p,)))
    (x0, y0), (x1, y1) = knots[i - 1], knots[i]
    return y0 + (y1 - y0) * (p - x0) / (x1 - x0)


# --- numbers ----------------------------------------------------------------------------------------------------


def _uncalibrated(signals: Signals) -> float:
    if signals.p is not None:
        return signals.p
    if signals.mean_logprob is not None:
        return math.exp(signals.mean_logprob)
    return 1.0 if signals.agreement is None else 0.5 + signals.agreement / 2


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, x))))


def _sigmoids(x: Floats) -> Floats:
    p: Floats = 1.0 / (1.0 + np.exp(-np.clip(x, -30, 30)))
    return p
