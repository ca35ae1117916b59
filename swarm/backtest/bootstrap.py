"""Intervals by resampling the queries (Efron's percentile bootstrap); pairs are resampled together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
Statistic = Callable[[NDArray[np.int_]], float]  # of the queries at these places, some of them more than once


@dataclass(frozen=True)
class Interval:
    """A value on all queries and where `level` of its resamples lie."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interval(
    statistic: Statistic, n: int, *, resamples: int = RESAMPLES, level: float = 0.95, seed: int = 0
) -> Interval:
    """The statistic on n queries with its interval. Resamples where it is undefined (ValueError, nan) are left out."""
    random = np.random.default_rng(seed)
    drawn = [_value(statistic, random.integers(0, n, n)) for _ in range(resamples)]
    found = np.array([v for v in drawn if np.isfinite(v)])
    value = statistic(np.arange(n))
    if not found.size:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def paired(
    ours: Statistic, other: Statistic, n: int, *, resamples: int = RESAMPLES, level: float = 0.95, seed: int = 0
) -> Interval:
    """ours − other, both on the same resample of the queries."""
    return interval(lambda at: ours(at) - other(at), n, resamples=resamples, level=level, seed=seed)


def _value(statistic: Statistic, at: NDArray[np.int_]) -> float:
    try:
        return statistic(at)
    except ValueError:
        return float("nan")
