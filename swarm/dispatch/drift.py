"""An alarm for a promise that no longer holds, valid however long and however often one looks.

A bettor plays against "at most `error` of the kept answers is wrong": at even odds she stakes a share of her wealth on
the next answer being wrong, so that while the hypothesis is true her wealth cannot be expected to grow, and by Ville's
inequality it ever reaches 1/α with probability at most α (Waudby-Smith & Ramdas 2024). She spreads it over several
stakes, and over all times at which to begin, since wealth lost in good times would be missing when things turn bad:
a reserve of ln c / ln (n + c) is still unstaked after n answers, and what leaves it starts afresh (a mixture over
starting times, as in Shin, Ramdas & Rinaldo 2024). The sum is a martingale too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

STAKES = (0.02, 0.05, 0.1, 0.2, 0.4)  # shares of the wealth lost by a right answer
SLOW = 100.0  # c: about how many answers pass until the reserve begins to go
MOST_WEIGHT = 2.0  # an answer counts at most so many times: no stake may exceed the wealth


@dataclass(frozen=True, slots=True)
class Wealth:
    """All that an alarm remembers. `staked` is the wealth on each of `STAKES`, `peak` the most there ever was."""

    n: int = 0
    staked: tuple[float, ...] = (0.0,) * len(STAKES)
    peak: float = 1.0


class Drift:
    """Watches the error of kept answers by those of them that were shadowed.

    error: the certified rate, in (0, 1). alarm_at: 1/α, for at most α false alarms, ever. wealth: where an earlier one
    stopped. After the alarm nothing more is observed: the step has to be calibrated anew.
    """

    def __init__(self, error: float, alarm_at: float = 20.0, wealth: Wealth | None = None) -> None:
        if not 0.0 < error < 1.0 or not alarm_at > 1.0:
            raise ValueError(f"error {error} must lie between 0 and 1, alarm_at {alarm_at} above 1")
        self.error, self.alarm_at = error, alarm_at
        self.wealth = wealth or Wealth()

    def observe(self, wrong: bool, weight: float = 1.0) -> None:
        """A shadowed answer, and whether it was wrong.

        `weight` is the usual propensity over this answer's own, for a sample with unequal ones; it is clipped at
        `MOST_WEIGHT`, and then answers that were seldom looked at count too little.
        """
        if self.alarm:
            return
        before = self.wealth
        entering = (reserve(before.n) - reserve(before.n + 1)) / len(STAKES)
        edge = min(weight, MOST_WEIGHT) * (float(wrong) - self.error) / self.error
        bets = zip(before.staked, STAKES, strict=True)
        staked = tuple((has + entering) * (1.0 + stake * edge) for has, stake in bets)
        n = before.n + 1
        self.wealth = Wealth(n, staked, max(before.peak, reserve(n) + sum(staked)))

    @property
    def evidence(self) -> float:
        """Her wealth, having begun with 1: how strongly the answers speak against the promise."""
        return reserve(self.wealth.n) + sum(self.wealth.staked)

    @property
    def alarm(self) -> bool:
        """Whether the evidence has ever reached `alarm_at`."""
        return self.wealth.peak >= self.alarm_at


def reserve(n: int) -> float:
    """The share of the wealth that is not yet staked after `n` answers."""
    return math.log(SLOW) / math.log(n + SLOW)
