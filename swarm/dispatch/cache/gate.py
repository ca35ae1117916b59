"""Whether an earlier answer may be reused, and with which chance it is looked at: the promise of a semantic cache.

Of all requests, at most a share `error` is answered wrongly by a reuse, at every time, with probability `level` over
the coins that the cache itself throws (`audit`). The gate lets nothing be reused that could break this. What it lets
through beyond that is policy: the freer the budget of wrong reuses, the riskier one may be; and the riskier one is,
the likelier it is looked at (the square root of its risk is what makes the bound narrowest for the looks it takes,
Neyman 1934).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from swarm.dispatch.cache.audit import Audit, Evidence

NOTHING_SEEN = Evidence()
SPENT = 0.85  # of the budget that the bound may take up, for the sake of fewer looks
STEEP = 0.5  # the riskiest reuse that is made, as a multiple of the share of the budget that is free
LOOKS = 0.01  # how much is looked at beyond the least, where there is risk
MOST_LOOKS = 0.6  # a reuse that would need more of them is not made


@dataclass(frozen=True, slots=True)
class Standing:
    """All that a gate remembers: how many requests there were, and what its looks have shown."""

    requests: int = 0
    evidence: Evidence = NOTHING_SEEN


class Gate:
    """One step's."""

    def __init__(self, error: float = 0.02, level: float = 0.95, standing: Standing | None = None) -> None:
        if not 0.0 < error < 1.0:
            raise ValueError(f"error is {error}; it must lie between 0 and 1, both excluded")
        known = standing or Standing()
        self.error = error
        self.audit = Audit(level, known.evidence)
        self.requests = known.requests

    @property
    def standing(self) -> Standing:
        return Standing(self.requests, self.audit.evidence)

    def chance(self, risk: float) -> float:
        """The chance with which the reuse of this risk is to be looked at; 1: it may not be made. One more request.

        To be followed by the coin, and then by `audit.looked` where that says look.
        """
        self.requests += 1
        budget = self.error * self.requests
        least = self.audit.least(SPENT * budget)
        if least > MOST_LOOKS:
            return 1.0
        most = STEEP * (1.0 - self.audit.after(least) / budget)
        if risk >= most:
            return 1.0
        chance = max(least, sqrt(LOOKS * risk / (most - risk)))
        if chance > MOST_LOOKS:
            return 1.0
        self.audit.stake(chance)
        return chance
