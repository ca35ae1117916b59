"""Cost against quality: what a policy, or a router between two models, gets for its money.

A router gives each query a score; the queries with the highest scores go to the strong model. Every share that can be
sent is a point of its curve: n queries make n + 1 points. Queries with equal scores are taken in random order, so each
of them counts with the mean of all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Points by rising cost: `cost` is a share of queries (0..1) or mean dollars a query, `quality` a mean, 0..1."""

    cost: Floats
    quality: Floats

    @classmethod
    def through(cls, cost: ArrayLike, quality: ArrayLike) -> Curve:
        """The points in any order. Raises ValueError when there are none or one of them is not a number."""
        x, y = np.asarray(cost, np.float64), np.asarray(quality, np.float64)
        if x.shape != y.shape or x.ndim != 1 or not x.size:
            raise ValueError(f"a curve needs as many costs as qualities, at least one; got {x.shape} and {y.shape}")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("a curve needs finite costs and qualities")
        order = np.lexsort((y, x))
        return cls(x[order], y[order])

    def at(self, cost: ArrayLike) -> Floats:
        """Quality at these costs, straight lines between the points; outside them, that of the nearest."""
        x, y = self._steepest()
        return np.asarray(np.interp(np.asarray(cost, np.float64), x, y), np.float64)

    def hull(self) -> Curve:
        """The least concave curve above the points: what a coin between two of the settings can reach, at any cost
        from the cheapest up. A dearer setting that is no better is not used."""
        kept: list[tuple[float, float]] = []
        for x, y in zip(*self._steepest(), strict=True):
            if kept and y <= kept[-1][1]:
                continue
            while len(kept) > 1 and _turns_up(kept[-2], kept[-1], (x, y)):
                kept.pop()
            kept.append((float(x), float(y)))
        return Curve(np.array([x for x, _ in kept]), np.array([y for _, y in kept]))

    def area(self, low: float, high: float) -> float:
        """Mean quality over costs from `low` to `high`: the area under the curve there, divided by its width."""
        if not high > low:
            raise ValueError(f"an area needs a width; got costs from {low} to {high}")
        inner = self.cost[(self.cost > low) & (self.cost < high)]
        x = np.concatenate(([low], np.unique(inner), [high]))
        y = self.at(x)
        return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (high - low))  # numpy 1 has no trapezoid

    def cost_of(self, quality: float) -> float:
        """The least cost at which the curve reaches this quality, nan where it never does."""
        x, y = self._steepest()
        reached = np.flatnonzero(y >= quality - 1e-12)
        if not reached.size:
            return float("nan")
        i = int(reached[0])
        if i == 0:
            return float(x[0])
        return float(x[i - 1] + (x[i] - x[i - 1]) * (quality - y[i - 1]) / max(1e-300, y[i] - y[i - 1]))

    def _steepest(self) -> tuple[Floats, Floats]:
        """The best point of each cost."""
        last = np.flatnonzero(np.diff(self.cost, append=np.inf) > 0)  # sorted by quality within a cost
        return self.cost[last], self.quality[last]


def prefixes(scores: ArrayLike, gained: ArrayLike) -> Floats:
    """Sum of `gained` over the k highest scores, for k = 0..n: shape (n + 1,). Ties in random order, as expected."""
    s, g = np.asarray(scores, np.float64), np.asarray(gained, np.float64)
    if s.shape != g.shape or s.ndim != 1 or not s.size:
        raise ValueError(f"a score for each query is needed; got {s.shape} scores for {g.shape}")
    if np.isnan(s).any():
        raise ValueError("a score is not a number")
    order = np.argsort(-s, kind="stable")
    s, sums = s[order], np.concatenate(([0.0], np.cumsum(g[order])))
    ends = np.concatenate(([0], np.flatnonzero(np.diff(s)) + 1, [s.size]))  # where one tie ends and the next begins
    return np.asarray(np.interp(np.arange(s.size + 1), ends, sums[ends]), np.float64)


def router(scores: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> Curve:
    """Quality by the share sent to the strong model. `weak`, `strong`: quality of each query, (n,)."""
    w, s = np.asarray(weak, np.float64), np.asarray(strong, np.float64)
    return Curve(np.linspace(0.0, 1.0, w.size + 1), w.mean() + prefixes(scores, s - w) / w.size)


def router_usd(
    scores: ArrayLike, weak: ArrayLike, strong: ArrayLike, weak_usd: ArrayLike, strong_usd: ArrayLike, *, cascade: bool
) -> Curve:
    """Quality by mean dollars a query. `cascade`: the weak model was asked first and is paid for either way."""
    w, s = np.asarray(weak, np.float64), np.asarray(strong, np.float64)
    before, dearer = np.asarray(weak_usd, np.float64), np.asarray(strong_usd, np.float64)
    more = dearer if cascade else dearer - before
    return Curve.through(before.mean() + prefixes(scores, more) / w.size, w.mean() + prefixes(scores, s - w) / w.size)


def _turns_up(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """b lies on or below the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])
