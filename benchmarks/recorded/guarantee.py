"""Is the certified error kept? Thousands of certificates on recorded answers, each judged by the truth.

    PYTHONPATH=benchmarks python -m recorded.guarantee [--data FOLDER] [--resplits 1000]

Each set is one model's recorded answers with a confidence. Where that has to be learnt, a third of the set teaches it
(fixed seed) and is not used again. The rest is the *population*: a certificate promises something about the error on
all that may come, and on a finite set that can be checked to the last answer if the labels are an independent sample
of it. So every resplit draws half as many labels as the population has answers, *with replacement*, certifies, and
looks up the error of all the population's answers above the threshold: `broken` is the share of resplits in which that
exceeds the target, and must be ≤ δ. `other half` is what one sees who splits without replacement and judges by the
rest: there the verdict is a small sample itself, whose luck is the opposite of the labels', so it breaks more often.
`possible` is the coverage of one who knows the truth.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from recorded.data import DataMissing, folder
from recorded.scored import Scored, n_sets, sets
from swarm.dispatch.certify import certify
from swarm.dispatch.reliability import coverage_at

TARGETS = (0.02, 0.05, 0.1)
LEVEL = 0.95
SEED = 7


@dataclass(frozen=True)
class Row:
    """What became of the certificates on one set for one target."""

    name: str
    n: int
    accuracy: float
    target: float
    certified: float
    broken: float
    broken_on_other_half: float
    coverage: float
    possible: float
    missing: int | None  # further labels, by the median of the resplits in which nothing was certified


def guarantee(data: Path, resplits: int = 1000, step: Callable[[], None] = lambda: None) -> list[Row]:
    """Every set under `data` (the folder of recorded routing data, `tasks` beside it) at every target.

    `step` is called once for each row, for progress. Raises `DataMissing`.
    """
    rows = []
    for scored in sets(data):
        for target in TARGETS:
            rows.append(measured(scored, target, resplits))
            step()
    return rows


def measured(scored: Scored, target: float, resplits: int) -> Row:
    """Certificates from `resplits` seeded samples of one set, judged both ways."""
    n = len(scored.sure)
    broken, broken_half, coverages, missing = 0, 0, [], []
    for i in range(resplits):
        dice = np.random.default_rng([SEED, i])
        threshold, more = _certified(scored, dice.integers(0, n, n // 2), target)
        if threshold is None:
            missing.append(more)
        error, coverage = (0.0, 0.0) if threshold is None else scored.error_above(threshold)
        coverages.append(coverage)
        broken += error > target
        order = dice.permutation(n)
        threshold, _ = _certified(scored, order[: n // 2], target)
        other = Scored(scored.name, scored.sure[order[n // 2 :]], scored.right[order[n // 2 :]])
        broken_half += threshold is not None and other.error_above(threshold)[0] > target
    known = sorted(m for m in missing if m is not None)
    return Row(
        name=scored.name,
        n=n,
        accuracy=float(scored.right.mean()),
        target=target,
        certified=1 - len(missing) / resplits,
        broken=broken / resplits,
        broken_on_other_half=broken_half / resplits,
        coverage=float(np.mean(coverages)),
        possible=coverage_at(scored.sure.tolist(), scored.right.tolist(), 1 - target),
        missing=known[len(known) // 2] if 2 * len(known) > len(missing) else None,
    )


def _certified(scored: Scored, at: NDArray[np.int_], target: float) -> tuple[float | None, int | None]:
    found = certify(scored.sure[at].tolist(), scored.right[at].tolist(), target, LEVEL)
    return found.threshold, found.missing


# --- the table --------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row], resplits: int) -> Table:
    columns = (
        "set",
        "answers",
        "right",
        "target",
        "certified",
        "broken",
        "other half",
        "coverage",
        "possible",
        "missing",
    )
    shown = Table(*columns, title=f"{resplits:,} resplits, δ = {1 - LEVEL:.2f}", title_justify="left")
    for r in rows:
        missing = "" if r.certified > 0.5 else "no number" if r.missing is None else f"{r.missing:,} labels"
        about = (r.name, f"{r.n:,}", f"{r.accuracy:.1%}", f"{r.target:.0%}")
        shares = [f"{x:.1%}" for x in (r.certified, r.broken, r.broken_on_other_half, r.coverage, r.possible)]
        shown.add_row(*about, *(shares if r.certified else ["nothing", "", "", "", shares[-1]]), missing)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--resplits", type=int, default=1000)
    args = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150)
    try:
        data = folder(args.data)
        with Progress(console=console) as progress:
            bar = progress.add_task("certifying", total=n_sets(data) * len(TARGETS))
            rows = guarantee(data, args.resplits, lambda: progress.advance(bar))
    except DataMissing as e:
        sys.exit(str(e))
    console.print(table(rows, args.resplits))
    worst = max(rows, key=lambda r: r.broken)
    console.print(
        f"broken most often: {worst.name} at {worst.target:.0%}: {worst.broken:.1%} of resplits", highlight=False
    )


if __name__ == "__main__":
    main()
