"""The shadow price λ of a budget that must last: how much more than its price an escalation has to bring.

An online knapsack: each task offers an escalation with an expected gain and a price, taken or left at once. With the
offers to come known, the best rule takes all whose gain per dollar is above one threshold (Dantzig, 1957), the least
that the money left affords; 1 + λ is that threshold. It is found anew before every task from what is left of budget
and work, as adaptive pacing does (Balseiro and Gur, "Learning in Repeated Auctions with Budgets", 2019), but by ranks
rather than by gradient steps: the offers to come are guessed from a prior and from those seen.

First come, first served is λ = 0, so wherever the order is in doubt the lower price is the safe one. The offers to come
are guessed twice, as being like those seen and as what the prior expects of the whole batch less what has come, and the
lower price is taken: a batch that brings its best first is not slowed down. Where what was bought brings surely more
than was foreseen, now is a good time to buy, and the price falls. It is 0 whenever the money left covers all the work
that pays, so that a reserve is never left over.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import msgspec

BINS = 24  # of gain per dollar
BELIEVED = 60.0  # how many seen offers weigh as much as the prior
MEMORY = 40.0  # bought offers that are remembered to tell how well they turn out
NOISE = 1.0  # standard errors by which fewer good offers may come than the prior expects
SURE = 2.0  # standard errors
FEWEST = 5.0  # bought offers before which nothing is concluded
EAGER = 2.0  # power to which the price follows how much better they turned out
TIE = 1e-6  # an offer as good as the threshold is taken
HIGHEST = 64.0  # dollars of gain per dollar: the last bin's end where no prior says more


class Offered(msgspec.Struct, frozen=True, gc=False):
    """An escalation that could be had: dollars of expected gain, price in micro-dollars."""

    gain_usd: float
    micro_usd: float

    @property
    def yields(self) -> float:
        """Dollars of gain per dollar."""
        return self.gain_usd * 1e6 / self.micro_usd if self.micro_usd > 0 else (HIGHEST if self.gain_usd > 0 else 0.0)


class Bought(msgspec.Struct):
    """How well escalations turned out, of late most: sums over expected gains and over what more came, dollars."""

    n: float = 0.0
    expected: float = 0.0
    more: float = 0.0
    more_squared: float = 0.0

    def add(self, expected: float, came: float) -> None:
        keep = 1.0 - 1.0 / MEMORY
        self.n = self.n * keep + 1.0
        self.expected = self.expected * keep + expected
        self.more = self.more * keep + came - expected
        self.more_squared = self.more_squared * keep + (came - expected) ** 2

    def better(self) -> float:
        """By what factor, at least 1, escalations surely bring more than was expected of them."""
        if self.n < FEWEST or self.expected <= 0.0:
            return 1.0
        mean = self.more / self.n
        error = math.sqrt(max(0.0, self.more_squared / self.n - mean * mean) * self.n)
        return max(1.0, 1.0 + (self.more - SURE * error) / self.expected)


class Pacer(msgspec.Struct):
    """The memory of one batch; a msgspec struct, so that it can be kept with the run. Made by `pacer`.

    By bin of gain per dollar, ascending: `lows` and `tops` of it, `shares` of the offers and `prices` (micro-dollars of
    the mean offer) by the prior, `seen` offers that came.
    """

    lows: list[float]
    tops: list[float]
    shares: list[float]
    prices: list[float]
    seen: list[int]
    bought: Bought

    def observe(self, offered: Offered, came_usd: float | None = None) -> None:
        """A task has come with this offer. came_usd: what it brought, as far as is known now, if it was taken: the
        value of P(right) of the answer then kept less that of the one kept before, both judged with all answers in."""
        at = min(len(self.seen) - 1, max(0, bisect_right(self.lows, offered.yields) - 1))
        self.seen[at] += 1
        self.prices[at] += (offered.micro_usd - self.prices[at]) / (self.seen[at] + 4)
        if came_usd is not None:
            self.bought.add(offered.gain_usd, came_usd)

    def price(
        self, left_micro_usd: float, tasks_left: float | None = None, *,
        seconds_left: float | None = None, seconds_gone: float = 0.0,
    ) -> float:  # fmt: skip
        """λ ≥ 0 for the next task, itself counted among `tasks_left`.

        Where nobody knows how many will come, give the seconds: as many a second as came so far are expected. With
        neither nothing is known of the work, and λ is 0.
        """
        if tasks_left is None and seconds_left is not None and seconds_gone > 0.0:
            tasks_left = sum(self.seen) * seconds_left / seconds_gone
        if tasks_left is None:
            return 0.0
        left_to_come = max(1.0, tasks_left)
        guesses = (self._like_the_seen(left_to_come), self._missing_so_far(left_to_come))
        threshold = min(self._threshold(left_micro_usd, counts) for counts in guesses)
        return max(0.0, threshold / math.pow(self.bought.better(), EAGER) - 1.0)

    def _like_the_seen(self, tasks_left: float) -> list[float]:
        """Offers to come by bin, as the prior and the seen are."""
        each = tasks_left / (BELIEVED + sum(self.seen))
        return [(BELIEVED * share + seen) * each for share, seen in zip(self.shares, self.seen, strict=True)]

    def _missing_so_far(self, tasks_left: float) -> list[float]:
        """Offers to come by bin: those that the prior expects of the whole batch, from the best down, less the seen and
        less what chance may have taken."""
        n = sum(self.seen) + tasks_left
        above = seen = missing = 0.0
        counts = [0.0] * len(self.seen)
        for b in range(len(counts) - 1, -1, -1):
            above += self.shares[b]
            seen += self.seen[b]
            surely = n * above - seen - NOISE * math.sqrt(max(0.0, n * above * (1.0 - above)))
            now = min(tasks_left, max(missing, surely))
            counts[b], missing = now - missing, now
        return counts

    def _threshold(self, left: float, counts: Sequence[float]) -> float:
        """The least gain per dollar that is affordable, if these offers come."""
        for b in range(len(counts) - 1, -1, -1):
            low, top = self.lows[b], self.tops[b]
            if top <= 1.0:
                break  # does not pay by itself
            wanted = counts[b] * self.prices[b]
            if wanted > left:
                return (top - (top - low) * left / wanted) * (1.0 - TIE)
            left -= wanted
        return 0.0


def pacer(prior: Sequence[Offered] = (), bins: int = BINS) -> Pacer:
    """A pacer for one batch. prior: offers as they are expected, e.g. those of the labelled rows; none: anything."""
    if not prior:
        lows = [0.0, *(HIGHEST ** (b / bins) for b in range(bins))]
        n = len(lows)
        return Pacer(lows, [*lows[1:], HIGHEST], [1.0 / n] * n, [1.0] * n, [0] * n, Bought())
    ordered = sorted(prior, key=lambda offered: offered.yields)
    lows = sorted({ordered[i * len(ordered) // bins].yields for i in range(bins)})
    inside = [[o for o in ordered if bisect_right(lows, o.yields) == b + 1] for b in range(len(lows))]
    return Pacer(
        lows=lows,
        tops=[each[-1].yields for each in inside],
        shares=[len(each) / len(ordered) for each in inside],
        prices=[sum(o.micro_usd for o in each) / len(each) for each in inside],
        seen=[0] * len(lows),
        bought=Bought(),
    )
