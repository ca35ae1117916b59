"""The caches: is the semantic one's promise kept, and what do they save?

    python benchmarks/cache.py [--only promise,vectors,warm] [--data FOLDER] [--shuffles 200] [--error 0.02]

Each message of CLINC150 and banking77 is a request whose right answer is its label; a shuffle is the order they come
in. A reuse is wrong where the label of the item whose answer is reused is another. The share of wrong reuses among all
requests is what is promised (as vCache counts it), `kept` the share of shuffles that end with at most that much, `kept
always` of those that never have more. Nothing is known before the first request. 200 shuffles of both take some 25
minutes on one core; `swarm models pull all-MiniLM-L6-v2` brings the embedding model. `vectors` finds neighbours in two
ways. `warm` asks the triage swarm the same twice, in this process.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from cached import shuffles, vectors, warm
from cached.stream import SETS, folder, messages
from peers.report import Report
from recorded.data import DataMissing

from swarm.errors import ModelDamaged, ModelNotFound

PARTS = ("promise", "vectors", "warm")


def promise(args: Any, report: Report) -> None:
    data = folder(args.data)
    rows: list[tuple[str, ...]] = []
    wanted = shuffles.Promise(args.error, args.confidence)
    for name in args.sets:
        found = shuffles.compared(messages(data, name), wanted, args.shuffles, partial(_tell, name, args.shuffles))
        rows += shuffles.rows(name, found, args.error)
    title = f"{args.shuffles} shuffles, at most {args.error:.1%} wrong with probability {args.confidence:.0%}"
    report.table(title, shuffles.COLUMNS, rows)


def _tell(name: str, of: int, done: int) -> None:
    print(f"\r{name}: shuffle {done} of {of}", end="\n" if done == of else "", file=sys.stderr, flush=True)


def main() -> None:
    args = _arguments()
    report = Report()
    try:
        if "promise" in args.only:
            promise(args, report)
        if "warm" in args.only:
            report.table("the triage swarm, asked twice", warm.COLUMNS, warm.rows(args.messages))
        if "vectors" in args.only:
            rows = [vectors.row(size) for size in vectors.SIZES]
            report.table("ten nearest vectors of 384 dimensions, one thread", vectors.COLUMNS, rows)
    except (DataMissing, ModelNotFound, ModelDamaged) as error:
        sys.exit(str(error))
    report.close()


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), type=_parts, help="parts, with commas (default: all)")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--data", type=Path, help="the folder of the labelled tasks (default: ../shared/data)")
    parser.add_argument("--shuffles", type=int, default=200)
    parser.add_argument("--messages", type=int, help="of the triage inbox (default: all)")
    parser.add_argument("--error", type=float, default=0.02, help="most wrong reuses, as a share of all requests")
    parser.add_argument("--confidence", type=float, default=0.95, help="the probability with which that holds")
    return parser.parse_args()


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        raise argparse.ArgumentTypeError(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    return parts


if __name__ == "__main__":
    main()
