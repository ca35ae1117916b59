"""What a random share of looked-at reuses proves about the others, whatever comes.

Where an earlier answer could be reused, a coin falls: with chance e the answer is computed all the same and compared,
else it is reused, and nobody learns whether that was wrong. A bettor stakes a share b of her wealth on each wrong one
escaping the look: it grows by 1 + b where it escapes, and shrinks by 1 − b / (e / (1 − e)) where it is caught. The odds
are fair by the coin alone, so that by Ville's inequality her wealth ever reaches 1/α with probability at most α (the
betting of Waudby-Smith & Ramdas 2024, on a coin of our own). From what was caught follows how many can have escaped.

Nothing is assumed about the requests: they may drift, depend on each other, or be chosen by somebody who knows
everything but the coins to come. Several bets share the wealth, as the best one depends on what is not known before; a
bet too large for a chance must leave the game before that coin falls, and the bets that remain tell of all coins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

BETS = tuple(0.9 / 1.6**i for i in range(12))[::-1]  # 0.005 to 0.9
MOST = 0.8  # of its wealth that a bet may lose by one that is caught
CHANCES = tuple(bet / (bet + MOST) for bet in BETS)  # the least chance of a look at which each may be made


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that an audit remembers. `logs`: of each bet's wealth, but for the reuses that nobody looked at.

    The first `live` bets are still in the game.
    """

    logs: tuple[float, ...] = (0.0,) * len(BETS)
    live: int = len(BETS)


class Audit:
    """Bounds the wrong reuses nobody saw: at any time at most `bound()`, with probability `level`, for all times."""

    def __init__(self, level: float = 0.95, evidence: Evidence | None = None) -> None:
        if not 0.0 < level < 1.0:
            raise ValueError(f"level is {level}; it must lie between 0 and 1, both excluded")
        self._wanted = math.log(len(BETS) / (1.0 - level))
        self.evidence = evidence or Evidence()
        self._bounds: dict[int, int] = {}

    def bound(self) -> int:
        """The most wrong reuses that can have escaped."""
        return self._bound(self.evidence.live)

    def least(self, most: float) -> float:
        """The least chance of a look that leaves the bound at `most` or below; where none does, the one that keeps all
        bets in the game."""
        live = self.evidence.live
        while live > 1 and self._bound(live - 1) <= most:
            live -= 1
        return CHANCES[live - 1] if live else 1.0

    def after(self, chance: float) -> int:
        """The bound as it will be once a coin with this chance of a look has fallen."""
        return self._bound(self._live(chance))

    def stake(self, chance: float) -> None:
        """A coin with this chance of a look is about to fall: bets too large for it leave the game."""
        live = self._live(chance)
        if live < self.evidence.live:
            self.evidence = Evidence(self.evidence.logs, live)

    def looked(self, chance: float) -> None:
        """The coin says look. Until more is known it counts as one that was caught."""
        self._add(chance, 1.0)

    def right(self, chance: float) -> None:
        """What was looked at was right after all."""
        self._add(chance, -1.0)

    def _add(self, chance: float, sign: float) -> None:
        if chance >= 1.0:
            return  # it could not have escaped
        left = chance / (1.0 - chance)
        costs = [math.log1p(-min(MOST, bet / left)) for bet in BETS]
        logs = tuple(log + sign * cost for log, cost in zip(self.evidence.logs, costs, strict=True))
        self.evidence = Evidence(logs, self.evidence.live)
        self._bounds.clear()

    def _live(self, chance: float) -> int:
        live = self.evidence.live
        while live and CHANCES[live - 1] > chance:
            live -= 1
        return live

    def _bound(self, live: int) -> int:
        if live not in self._bounds:
            self._bounds[live] = self._solved(live)
        return self._bounds[live]

    def _solved(self, live: int) -> int:
        """The most that keep the wealth of the first `live` bets below 1/α."""
        low, high = -1, 1
        while self._wealth(live, high) < self._wanted:
            low, high = high, 2 * high
            if high > 1 << 40:
                return high  # no bet is left that could tell
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._wealth(live, middle) < self._wanted else (low, middle)
        return max(0, low)

    def _wealth(self, live: int, escaped: int) -> float:
        """Its logarithm, times the number of bets, if so many have escaped."""
        logs = [log + escaped * math.log1p(bet) for log, bet in zip(self.evidence.logs[:live], BETS, strict=False)]
        most = max(logs, default=-math.inf)
        return most + math.log(sum(math.exp(log - most) for log in logs)) if logs else -math.inf
