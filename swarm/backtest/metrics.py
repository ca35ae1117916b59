"""What routers are compared by: RouteLLM's measures, exact and as its evaluator computes them, and dollars.

w, s: mean quality of always weak and always strong. PGR(c) = (r(c) − w) / (s − w) is the share of their gap that is won
when the share c goes to the strong model (Ong et al., RouteLLM, 2024, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from swarm.backtest.curve import Curve, Floats, router

DECILES = 11  # thresholds of RouteLLM's evaluator


@dataclass(frozen=True)
class Measures:
    """APGR is 0.5 for a coin; CPT is the share of queries sent, 0..1."""

    apgr: float
    cpt50: float
    cpt80: float
    apgr_deciles: float  # as RouteLLM's evaluator would print it
    weak: float
    strong: float


def measured(scores: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> Measures:
    """All of them for one router. Raises ValueError when the strong model is no better than the weak one."""
    pgr = recovered(scores, weak, strong)
    return Measures(
        apgr=pgr.area(0.0, 1.0),
        cpt50=first_crossing(pgr, 0.5),
        cpt80=first_crossing(pgr, 0.8),
        apgr_deciles=deciles(scores, weak, strong).area(0.0, 1.0),
        weak=float(np.mean(np.asarray(weak, np.float64))),
        strong=float(np.mean(np.asarray(strong, np.float64))),
    )


def recovered(scores: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> Curve:
    """PGR at every share that can be sent, k / n for k = 0..n. Raises ValueError when there is no gap."""
    curve = router(scores, weak, strong)
    w, s = curve.quality[0], curve.quality[-1]
    if not s > w:
        raise ValueError(f"the strong side is right {s:.3f} of the time, the weak {w:.3f}: there is no gap to win")
    return Curve(curve.cost, (curve.quality - w) / (s - w))


def apgr(scores: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> float:
    """Average performance gap recovered: the area under PGR over c in [0, 1], every prefix a point."""
    return recovered(scores, weak, strong).area(0.0, 1.0)


def cpt(scores: ArrayLike, weak: ArrayLike, strong: ArrayLike, share: float) -> float:
    """Call-performance threshold: the least c at which PGR reaches `share`, as a whole number of queries / n."""
    return first_crossing(recovered(scores, weak, strong), share)


def first_crossing(pgr: Curve, share: float) -> float:
    """The cost of the first point at or above `share`; nan where there is none."""
    reached = np.flatnonzero(pgr.quality >= share - 1e-12)
    return float(pgr.cost[reached[0]]) if reached.size else float("nan")


def deciles(scores: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> Curve:
    """PGR at RouteLLM's 11 thresholds, the deciles of the scores. Its area is for comparison with published figures."""
    s = np.asarray(scores, np.float64)
    w, gained = np.asarray(weak, np.float64), np.asarray(strong, np.float64) - np.asarray(weak, np.float64)
    levels = np.quantile(s, np.linspace(0.0, 1.0, DECILES))
    sent = [s >= level for level in levels] + [np.zeros(s.size, np.bool_)]
    shares = [float(mask.mean()) for mask in sent]
    won = [float((gained * mask).sum()) for mask in sent]
    if not gained.sum() > 0:
        raise ValueError(f"always strong is no better than always weak ({w.mean():.3f}): there is no gap to win")
    return Curve.through(shares, np.array(won) / gained.sum())


def oracle(weak: ArrayLike, strong: ArrayLike) -> Floats:
    """The best scores there are: the gain itself."""
    return np.asarray(strong, np.float64) - np.asarray(weak, np.float64)


def coin(n: int) -> Floats:
    """Scores that say nothing; with ties averaged their curve is the expectation of a random router."""
    return np.zeros(n)


def dollar_area(curve: Curve, cheapest_usd: float, dearest_usd: float, *, hull: bool = True) -> float:
    """Mean quality between the mean dollars of the cheapest and of the dearest single model.

    `hull`: of the concave hull (a policy may toss a coin between two of its settings), else of the points as they are.
    Below its cheapest point a curve counts with that point's quality, above its dearest with the dearest's.
    """
    return (curve.hull() if hull else curve).area(cheapest_usd, dearest_usd)


def usd_at_best_single(curve: Curve, single_qualities: ArrayLike) -> float:
    """Mean dollars at which the hull reaches the best single model's quality; nan where it never does."""
    return curve.hull().cost_of(float(np.max(np.asarray(single_qualities, np.float64))))
