"""Taking times: contestants take turns round by round, so that whatever else the machine does hits all of them."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from peers.contestant import Ask, Contestant, Reply

Act = Callable[[Contestant, Sequence[Ask]], Awaitable[list[Reply]]]


@dataclass
class Series:
    """One contestant's times. `units`: what each round is worth: messages, or tokens written."""

    name: str
    seconds: list[float] = field(default_factory=list)
    units: list[float] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)

    @property
    def unit_s(self) -> float:
        """Seconds a unit, the median of the rounds."""
        return statistics.median(s / u for s, u in zip(self.seconds, self.units, strict=True))

    def spread(self) -> str:
        """The fastest and the slowest round in units a second."""
        rates = [u / s for s, u in zip(self.seconds, self.units, strict=True)]
        return f"{min(rates):.1f} to {max(rates):.1f}"


async def answered(contestant: Contestant, asks: Sequence[Ask]) -> list[Reply]:
    return await contestant.answer(asks)


async def alternated(
    title: str,
    contestants: Sequence[Contestant],
    rounds: Sequence[Sequence[Ask]],
    *,
    act: Act = answered,
    by_tokens: bool = False,
) -> list[Series]:
    """Times of every contestant on every round but the first, which warms caches and is not counted."""
    series = [Series(contestant.name) for contestant in contestants]
    for number, asks in enumerate(rounds):
        progress(f"{title}: {f'round {number} of {len(rounds) - 1}' if number else 'warming up'}")
        for contestant, own in zip(contestants, series, strict=True):
            started = time.perf_counter()
            replies = await act(contestant, asks)
            seconds = time.perf_counter() - started
            if number:
                own.seconds.append(seconds)
                own.units.append(sum(reply.tokens for reply in replies) if by_tokens else len(replies))
                own.replies += replies
    return series


async def one_by_one(title: str, contestants: Sequence[Contestant], rounds: Sequence[Sequence[Ask]]) -> list[Series]:
    """The same with nothing else waiting: each request counts as a round of its own, and each begins with another."""
    series = [Series(contestant.name) for contestant in contestants]
    pairs = list(zip(contestants, series, strict=True))
    for number, asks in enumerate(rounds):
        progress(f"{title}: {f'round {number} of {len(rounds) - 1}' if number else 'warming up'}")
        for ask in asks:
            pairs.append(pairs.pop(0))  # who comes after whom must not matter
            for contestant, own in pairs:
                started = time.perf_counter()
                replies = await contestant.answer([ask])
                seconds = time.perf_counter() - started
                if number:
                    own.seconds.append(seconds)
                    own.units.append(1)
                    own.replies += replies
    return series


def progress(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)
