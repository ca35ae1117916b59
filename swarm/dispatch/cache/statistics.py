"""What the caches of a run have done, step by step."""

from __future__ import annotations

from dataclasses import dataclass, replace

from protocols.money import Amount

NOTHING = Amount()


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """Of one step in one run. `looked`: reuses that were computed all the same, `wrong` of which would have been wrong.

    `bound`: most wrong reuses since the cache began, over `requests` that the semantic cache was asked about.
    """

    asked: int = 0
    exact: int = 0
    together: int = 0
    near: int = 0
    looked: int = 0
    wrong: int = 0
    requests: int = 0
    bound: int = 0
    saved: Amount = NOTHING

    def plus(self, saved: Amount = NOTHING, /, **more: int) -> CacheStatistics:
        """The same with so much more of each."""
        return replace(self, saved=self.saved + saved, **{name: getattr(self, name) + n for name, n in more.items()})
