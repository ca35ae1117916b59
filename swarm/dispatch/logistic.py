"""Logistic regression with few labels: ridge-penalised towards a prior, by Newton's method.

Columns are standardised before the penalty is applied, so that one strength suits all, and scaled back afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STRENGTHS = (1.0, 4.0, 16.0, 64.0, 256.0)  # labels that a deviation of 1 from the prior weight costs
FOLDS = 5


def fit(x: Array, y: Array, strength: float, prior: Array | None = None) -> tuple[float, ...]:
    """(intercept, weight of each column) for `sigmoid(intercept + Σ weight × column)`.

    x: (n, d); y: (n,) of 0 and 1; prior: (d,) weights that are drawn to, 0 if not given.
    """
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale < 1e-9, 1.0, scale)
    columns = np.column_stack([np.ones(len(y)), (x - mean) / scale])
    towards = np.zeros(len(mean) + 1)
    if prior is not None:
        towards[1:] = prior * scale
    w = _newton(columns, y, towards, np.array([0.1, *(strength for _ in mean)]))
    weights = w[1:] / scale
    return tuple(float(v) for v in (w[0] - float(weights @ mean), *weights))


def best_strength(x: Array, y: Array, prior: Array | None = None, seed: int = 7) -> float:
    """The strength with the least log-loss on held-out folds; the stronger of equal ones."""
    fold = folds(len(y), FOLDS, seed)
    losses = dict.fromkeys(STRENGTHS, 0.0)
    for k in range(FOLDS):
        held = fold == k
        for strength in STRENGTHS:
            p = np.clip(predict(fit(x[~held], y[~held], strength, prior), x[held]), 1e-6, 1 - 1e-6)
            losses[strength] -= float((y[held] * np.log(p) + (1 - y[held]) * np.log(1 - p)).sum())
    return min(reversed(STRENGTHS), key=losses.__getitem__)


def folds(n: int, k: int, seed: int) -> NDArray[np.int_]:
    """Which of `k` folds of even size each of `n` rows is in, by the seed."""
    return np.random.default_rng(seed).permutation(np.arange(n) % k)


def predict(weights: Sequence[float], x: Array) -> Array:
    """P(1) of each row, (n,)."""
    w = np.asarray(weights)
    return _sigmoids(w[0] + x @ w[1:])


def sigmoid(z: float) -> float:
    """1 / (1 + e^-z), without overflow."""
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, z))))


def logit(p: float, least: float = 1e-4) -> float:
    """log(p / (1 - p)), p kept `least` away from 0 and 1."""
    p = min(1.0 - least, max(least, p))
    return math.log(p / (1.0 - p))


def _newton(x: Array, y: Array, prior: Array, penalty: Array) -> Array:
    w = prior.copy()
    for _ in range(50):
        p = _sigmoids(x @ w)
        gradient = x.T @ (p - y) + penalty * (w - prior)
        step = np.linalg.solve((x.T * (p * (1 - p))) @ x + np.diag(penalty), gradient)
        step *= min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))  # a full step may overshoot at separable data
        w -= step
        if np.abs(step).max() < 1e-6:
            break
    return w


def _sigmoids(z: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(z, -30, 30))))
