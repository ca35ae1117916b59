"""vCache's rule (Schroeder et al. 2025, arXiv 2502.03771), written from the paper to be compared with.

Every cached item has observations of its own: the similarity of each input whose nearest item it was and whose answer
was computed, and whether its answer would have been right; two are there from the start, (0, wrong) and (1, right). A
logistic curve σ(γ(s − t)) is fitted to them. For every ε of a grid, t is taken as high as it is with probability 1 − ε,
and the input is explored with probability min over ε of 1 − δ / (1 − (1 − ε) σ(γ(s − t(ε)))). With fewer than six
observations it is always explored. What was computed is stored where the nearest answer would have been wrong.

The variance of t is that of the delta method. Where right and wrong do not overlap the curve has no finite fit: a small
ridge gives it one, and the variance is 0.2 / n, about what the authors' program takes there from a table.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cached.outcome import Count, Outcome
from cached.stream import Held, Messages

FEWEST = 6  # observations
EPSILONS = np.linspace(1e-6, 1 - 1e-6, 50)
QUANTILES = np.array([NormalDist().inv_cdf(1 - e) for e in EPSILONS])
RIDGE = 1e-4
APART = 0.2  # the variance of t, times the observations, where right and wrong do not overlap


class Item:
    """One cached item's observations, and the curve through them."""

    def __init__(self) -> None:
        self._similar = [0.0, 1.0]
        self._right = [0.0, 1.0]
        self._weights = np.array([-1.0, 2.0])
        self._curve: tuple[float, float, float] | None = None

    def observe(self, similarity: float, right: bool) -> None:
        self._similar.append(similarity)
        self._right.append(float(right))
        self._curve = None

    def explore(self, similarity: float, delta: float) -> float:
        """The probability with which this input is explored."""
        if len(self._similar) < FEWEST:
            return 1.0
        t, gamma, deviation = self._curve = self._curve or self._fitted()
        thresholds = np.clip(t + QUANTILES * deviation, 0.0, 1.0)
        right = (1 - EPSILONS) / (1 + np.exp(-np.clip(gamma * (similarity - thresholds), -40, 40)))
        return float((1 - delta / (1 - right)).min())

    def _fitted(self) -> tuple[float, float, float]:
        """t, γ, and the standard deviation of t."""
        similar, right = np.array(self._similar), np.array(self._right)
        x = np.column_stack([np.ones(len(similar)), similar])
        w = self._weights.copy()
        for _ in range(30):
            p = 1 / (1 + np.exp(-np.clip(x @ w, -40, 40)))
            curvature = (x.T * (p * (1 - p))) @ x + RIDGE * np.eye(2)
            step = np.linalg.solve(curvature, x.T @ (p - right) + RIDGE * w)
            w -= step * min(1.0, 5.0 / max(1e-9, float(np.abs(step).max())))
            if np.abs(step).max() < 1e-3:
                break
        self._weights = w
        gamma = max(float(w[1]), 1e-6)
        t = min(1.0, max(0.0, -float(w[0]) / gamma))
        if similar[right == 1].min() > similar[right == 0].max():
            return t, gamma, math.sqrt(APART / len(similar))
        slope = np.array([-1 / gamma, w[0] / gamma**2])
        return t, gamma, math.sqrt(max(0.0, float(slope @ np.linalg.solve(curvature, slope))))


def vcache(messages: Messages, order: NDArray[np.int_], coins: NDArray[np.float64], delta: float) -> Outcome:
    held, count, labels = Held(messages), Count(), messages.labels
    items: dict[int, Item] = {}
    for place, coin in zip(order.tolist(), coins.tolist(), strict=True):
        near, similar = held.nearest(place, 1)
        if not len(near):
            count.compute()
        else:
            item, right = items[int(near[0])], bool(labels[near[0]] == labels[place])
            chance = item.explore(float(similar[0]), delta)
            if coin > chance:
                count.reuse(not right)
                continue
            count.compute(looked=chance < 1.0)
            item.observe(float(similar[0]), right)
            if right:
                continue
        held.add(place)
        items[place] = Item()
    return count.done()
