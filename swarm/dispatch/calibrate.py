"""Signals → P(correct): a logistic map per specialist and tier, drawn to a prior where labels are few.

The prior says that a stated probability is what it says. Each label moves the map away from that, as in penalised
(MAP) logistic regression with a Gaussian prior around those weights; Newton's method finds the optimum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from protocols.answers import Signals
from protocols.control import Calibration
from swarm.dispatch.features import FEATURES, features

PRIOR = {"p": 1.0}  # logit P(correct) = logit p
STRENGTH = 4.0  # about how many labels the prior is worth, per feature
FEWEST = 10  # below this nothing is learnt


def confidence(signals: Signals, calibration: Calibration | None) -> float:
    """P(correct) of an answer with these signals, 0..1. A failed check makes it 0; code without signals is sure."""
    if signals.checks_failed:
        return 0.0
    if calibration is None:
        return _uncalibrated(signals)
    known = features(signals)
    return _sigmoid(calibration.intercept + sum(w * known[name] for name, w in calibration.weights.items()))


def fit(signals: Sequence[Signals], correct: Sequence[bool]) -> Calibration | None:
    """The map that fits these labelled signals, or None when there are fewer than `FEWEST` usable ones."""
    usable = [(features(s), c) for s, c in zip(signals, correct, strict=True) if not s.checks_failed]
    if len(usable) < FEWEST:
        return None
    names = [n for n in FEATURES if any(f[n] != usable[0][0][n] for f, _ in usable) or n in PRIOR]
    names = [n for n in names if any(f[n] != 0.0 for f, _ in usable)]
    x = np.array([[1.0, *(f[n] for n in names)] for f, _ in usable])
    y = np.array([float(c) for _, c in usable])
    prior = np.array([0.0, *(PRIOR.get(n, 0.0) for n in names)])
    w = _newton(x, y, prior, np.diag([0.1, *(STRENGTH for _ in names)]))
    weights = {name: float(v) for name, v in zip(names, w[1:], strict=True)}
    return Calibration(intercept=float(w[0]), weights=weights, n_labels=len(usable), accuracy=float(y.mean()))


def _newton(x: np.ndarray, y: np.ndarray, prior: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    w = prior.copy()
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ w, -30, 30)))
        gradient = x.T @ (p - y) + penalty @ (w - prior)
        hessian = (x.T * (p * (1 - p))) @ x + penalty
        step = np.linalg.solve(hessian, gradient)
        step *= min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))  # a full step may overshoot at separable data
        w -= step
        if np.abs(step).max() < 1e-8:
            break
    return w


def _uncalibrated(signals: Signals) -> float:
    if signals.p is not None:
        return signals.p
    if signals.mean_logprob is not None:
        return math.exp(signals.mean_logprob)
    return 1.0 if signals.agreement is None else 0.5 + signals.agreement / 2


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, x))))
