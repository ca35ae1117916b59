"""The alarm for a broken promise, in figures: how often it is false, and how soon it is raised when error rises.

    PYTHONPATH=benchmarks python -m recorded.drift [--streams 2000] [--steps 100000]

Simulated streams of shadowed answers, of which exactly the certified share is wrong until the drop; the same wealth as
in `swarm.dispatch.drift`, of all streams at once. An alarm in a stationary stream is false, whenever it comes. Delays
are in shadowed answers, counted from the drop, over the streams that had raised no alarm before it; a stream that
raises none within `PATIENCE` counts with that.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from swarm.dispatch.drift import STAKES, reserve

ERRORS = (0.02, 0.05, 0.1)  # certified
RISE = 0.1  # what the drop adds to the error
AFTER = (0, 300, 3_000, 30_000)  # answers before the drop
ALARM_AT = 20.0  # α = 5%
PATIENCE = 2_000
CHUNK = 500  # steps drawn at a time
SEED = 11


@dataclass(frozen=True)
class Delay:
    """Of the streams whose error rises after so many answers: how many answers later the alarm comes."""

    error: float
    after: int
    median: float
    late: float  # the 90th percentile
    missed: float  # share of streams without an alarm within `PATIENCE`


def false_alarms(error: float, streams: int, steps: int, step: Callable[[int], None] = lambda n: None) -> float:
    """Share of stationary streams, at exactly the certified error, with an alarm within so many steps."""
    dice = np.random.default_rng([SEED, round(1e6 * error)])
    wealth = Watched(error, streams)
    for wrong in _drawn(dice, error, streams, steps):
        wealth.observe(wrong)
        step(len(wrong))
    return float((wealth.peak >= ALARM_AT).mean())


def delay(error: float, after: int, streams: int) -> Delay:
    """How soon a rise by `RISE`, after so many answers at the certified error, is seen."""
    dice = np.random.default_rng([SEED, round(1e6 * error), after])
    wealth = Watched(error, streams)
    for wrong in _drawn(dice, error, streams, after):
        wealth.observe(wrong)
    quiet = wealth.peak < ALARM_AT
    raised = np.full(streams, PATIENCE)
    for at, wrong in enumerate(_drawn(dice, error + RISE, streams, PATIENCE, chunk=1), start=1):
        before = wealth.peak >= ALARM_AT
        wealth.observe(wrong)
        raised[(wealth.peak >= ALARM_AT) & ~before] = at
    waits = raised[quiet]
    missed = float((wealth.peak[quiet] < ALARM_AT).mean())
    return Delay(error, after, float(np.median(waits)), float(np.quantile(waits, 0.9)), missed)


class Watched:
    """`Drift` over many streams at once, which goes on after an alarm. `peak` is the most wealth each ever had."""

    def __init__(self, error: float, streams: int) -> None:
        self.error, self.n = error, 0
        self._staked = np.zeros((len(STAKES), streams))
        self.evidence: NDArray[np.float64] = np.ones(streams)
        self.peak: NDArray[np.float64] = np.ones(streams)
        stakes = np.array(STAKES)
        self._right, self._by_wrong = 1 - stakes[:, None], (stakes / error)[:, None]

    def observe(self, wrong: NDArray[np.bool_]) -> None:
        """(steps, streams): what was found at each step in each stream."""
        for line in wrong:
            self._staked += (reserve(self.n) - reserve(self.n + 1)) / len(STAKES)
            self._staked *= self._right + self._by_wrong * line
            self.n += 1
            self.evidence = reserve(self.n) + self._staked.sum(axis=0)
            np.maximum(self.peak, self.evidence, out=self.peak)


def _drawn(
    dice: np.random.Generator, error: float, streams: int, steps: int, chunk: int = CHUNK
) -> Iterator[NDArray[np.bool_]]:
    for start in range(0, steps, chunk):
        yield dice.random((min(chunk, steps - start), streams), dtype=np.float32) < error


def tables(alarms: Sequence[tuple[float, float]], delays: Sequence[Delay], streams: int, steps: int) -> Iterator[Table]:
    shown = Table("certified error", f"false alarms in {steps:,} answers, {streams:,} streams, α = {1 / ALARM_AT:.2f}")
    for error, share in alarms:
        shown.add_row(f"{error:.0%}", f"{share:.2%}")
    yield shown
    columns = ("certified error", "then", "after answers", "median delay", "90%", f"none in {PATIENCE:,}")
    shown = Table(*columns, title="delay of the alarm, in shadowed answers", title_justify="left")
    for d in delays:
        cells = (f"{d.error:.0%}", f"{d.error + RISE:.0%}", f"{d.after:,}", f"{d.median:.0f}", f"{d.late:.0f}")
        shown.add_row(*cells, f"{d.missed:.1%}")
    yield shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--streams", type=int, default=2_000)
    parser.add_argument("--steps", type=int, default=100_000)
    args = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    with Progress(console=console) as progress:
        bar = progress.add_task("stationary", total=len(ERRORS) * args.steps)
        alarms = [
            (error, false_alarms(error, args.streams, args.steps, lambda n: progress.advance(bar, n)))
            for error in ERRORS
        ]
        bar = progress.add_task("dropping", total=len(ERRORS) * len(AFTER))
        delays = []
        for error in ERRORS:
            for after in AFTER:
                delays.append(delay(error, after, args.streams))
                progress.advance(bar)
    for shown in tables(alarms, delays, args.streams, args.steps):
        console.print(shown)


if __name__ == "__main__":
    main()
