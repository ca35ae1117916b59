"""What one cache did with one shuffle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """Of all requests: how many were answered by reuse, how many of those wrongly, how many reuses were looked at.

    `worst`: the largest share of wrong reuses among the requests so far, at any time.
    """

    requests: int
    reused: int
    wrong: int
    looked: int = 0
    worst: float = 0.0

    @property
    def hits(self) -> float:
        return self.reused / self.requests

    @property
    def error(self) -> float:
        """Wrong reuses among all requests: what is promised."""
        return self.wrong / self.requests

    @property
    def error_of_reuses(self) -> float:
        return self.wrong / max(1, self.reused)


@dataclass
class Count:
    """An outcome in the making."""

    requests: int = 0
    reused: int = 0
    wrong: int = 0
    looked: int = 0
    worst: float = 0.0

    def reuse(self, wrong: bool) -> None:
        self.requests += 1
        self.reused += 1
        self.wrong += wrong
        self.worst = max(self.worst, self.wrong / self.requests)

    def compute(self, looked: bool = False) -> None:
        self.requests += 1
        self.looked += looked

    def done(self) -> Outcome:
        return Outcome(self.requests, self.reused, self.wrong, self.looked, self.worst)


def kept(outcomes: Sequence[Outcome], error: float) -> float:
    """The share of shuffles that kept the promise at their end."""
    return sum(o.error <= error for o in outcomes) / len(outcomes)


def kept_always(outcomes: Sequence[Outcome], error: float) -> float:
    """The share of shuffles that kept it after every request."""
    return sum(o.worst <= error for o in outcomes) / len(outcomes)
