"""Short requests arriving steadily while long texts are written: what each side costs the other. Ours only."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass, field

from peers.contestant import Ask
from peers.ours import Ours
from peers.rounds import progress
from peers.setup import Setup

WRITERS = 4


@dataclass
class Load:
    """Short requests arrived for `arriving_s`; all texts together were `written` tokens in `writing_s`."""

    latencies_s: list[float] = field(default_factory=list)
    arriving_s: float = 0.0
    written: int = 0
    writing_s: float = 0.0

    @property
    def p95_s(self) -> float:
        return statistics.quantiles(self.latencies_s, n=20, method="inclusive")[-1]

    @property
    def tokens_s(self) -> float:
        return self.written / self.writing_s

    def tokens_s_meanwhile(self, undisturbed: float) -> float:
        """While short ones arrived, if the rest was written `undisturbed`."""
        return (self.written - (self.writing_s - self.arriving_s) * undisturbed) / self.arriving_s


def mixed(setup: Setup) -> None:
    """p95 of short classifies alone and beside four texts of 1,500 tokens, and the texts' tokens a second likewise."""
    n, length = setup.size(200, 10), setup.size(1500, 48)
    with setup.engine(context=16384) as engine, asyncio.Runner() as runner:
        ours = Ours(engine)
        rate = setup.rate or runner.run(_capacity(setup, ours)) / 3
        progress("mixed load: short ones alone")
        alone = runner.run(_load(setup, ours, rate, shorts=n, length=0))
        progress("mixed load: texts alone")
        texts = runner.run(_load(setup, ours, rate, shorts=0, length=length))
        progress("mixed load: both")
        both = runner.run(_load(setup, ours, rate, shorts=n, length=length))
    meanwhile = both.tokens_s_meanwhile(texts.tokens_s)
    rows = [
        _row("p95 of the short ones, ms", 1000 * alone.p95_s, 1000 * both.p95_s),
        _row("median of the short ones, ms", *(1000 * statistics.median(x.latencies_s) for x in (alone, both))),
        _row("tokens/s of the texts", texts.tokens_s, both.tokens_s),
        _row("the same while short ones arrived", texts.tokens_s, meanwhile),
    ]
    title = f"mixed load: short classifies, {rate:.1f} a second, beside {WRITERS} texts of {length} tokens"
    notes = [
        f"{len(alone.latencies_s)} short ones alone; {len(both.latencies_s)} beside the texts, arriving during "
        f"{min(1.0, both.arriving_s / both.writing_s):.0%} of the time that these took."
    ]
    setup.report.table(title, ("", "alone", "together", "ratio"), rows, notes)


def _row(what: str, alone: float, together: float) -> list[str]:
    return [what, f"{alone:.1f}", f"{together:.1f}", f"{together / alone:.2f}×"]


async def _capacity(setup: Setup, ours: Ours) -> float:
    """Messages a second when many wait at once."""
    n = setup.size(64, 6)
    await ours.answer(setup.cases.classify(n))
    started = time.perf_counter()
    await ours.answer(setup.cases.classify(n))
    return n / (time.perf_counter() - started)


async def _load(setup: Setup, ours: Ours, rate: float, *, shorts: int, length: int) -> Load:
    """Texts of `length` tokens beside `shorts` short requests, `rate` a second.

    Short requests that come when the texts are done would see an idle engine: they are not sent.
    """
    load = Load()
    asks = setup.cases.classify(shorts)
    started = time.perf_counter()
    writers = [asyncio.create_task(_write(setup, ours, length, load)) for _ in range(WRITERS if length else 0)]
    running: list[asyncio.Task[None]] = []
    while len(running) < shorts and not (writers and all(writer.done() for writer in writers)):
        running.append(asyncio.create_task(_timed(ours, asks[len(running)], load)))
        await asyncio.sleep(max(0.0, started + len(running) / rate - time.perf_counter()))
    load.arriving_s = time.perf_counter() - started
    await asyncio.gather(*writers, *running)
    return load


async def _write(setup: Setup, ours: Ours, length: int, load: Load) -> None:
    """Write `length` tokens, in several texts where one ends by itself."""
    started = time.perf_counter()
    left = length
    while left > 0:
        (reply,) = await ours.answer([setup.cases.story(left)])
        left -= max(1, reply.tokens)
        load.written += reply.tokens
    load.writing_s = max(load.writing_s, time.perf_counter() - started)


async def _timed(ours: Ours, ask: Ask, load: Load) -> None:
    started = time.perf_counter()
    await ours.answer([ask])
    load.latencies_s.append(time.perf_counter() - started)
