"""The local engine beside llama-server and llama-cpp-python's `Llama`, and against the machine's limit.

    python benchmarks/engine.py [--threads 2] [--rounds 5] [--only classify,extract] [--quick]

All read the same model file and the same token ids with the same number of threads; they take turns round by round, and
the median of the rounds is printed. `make peers` installs llama-server. How each peer is set up is said in
`peers/server.py` and `peers/llama_loop.py`. `swarm models pull smollm2-135m-instruct` brings the model.

Tables: classify, tuned (our format against the file as published), options77, extract, candidates, lone, limit,
restore, mixed. All of them take some twenty minutes on two cores; leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import structlog
from peers import tables
from peers.cases import Cases
from peers.limit import limit
from peers.mixed import mixed
from peers.report import Report
from peers.restore import restore
from peers.server import ServerMissing, find_server
from peers.setup import Setup

from swarm.errors import ModelDamaged, ModelNotFound
from swarm.models.store import PUBLISHED, ModelStore
from swarm.models.tuned import opening

TABLES: Mapping[str, Callable[[Setup], None]] = {
    "classify": tables.classify,
    "tuned": tables.tuned,
    "options77": tables.options77,
    "extract": tables.extract,
    "candidates": tables.candidates,
    "lone": tables.lone,
    "limit": limit,
    "restore": restore,
    "mixed": mixed,
}
ALONE = {"limit", "restore", "mixed"}  # no peers needed
PEERS = ("llama-server", "llama")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that llama-server is ended too
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    args = _arguments()
    names = _names(args.only)
    load = os.getloadavg()[0]
    try:
        model = (
            ModelStore().path(args.model, args.format)
            if args.format
            else opening(ModelStore(), args.model, args.threads)[0]
        )
        published = ModelStore().path(args.model, PUBLISHED)
    except (ModelNotFound, ModelDamaged) as error:
        sys.exit(str(error))
    file, chat_format = str(model.weights), model.chat_format or "plain"
    print(f"{model.weights.name} on {args.threads} threads, {args.rounds} rounds, load average {load:.2f}", flush=True)
    if load > 1:
        print("WARNING: the machine is busy; figures taken now are worth nothing", file=sys.stderr)
    try:
        needed = not ALONE.issuperset(names) and "llama-server" not in args.without
        server = find_server(args.server) if needed else None
        report = Report()
        with closing(Cases(file, chat_format, args.data and args.data / "banking77")) as cases:
            setup = Setup(
                file=file,
                published=str(published.weights),
                chat_format=chat_format,
                threads=args.threads,
                rounds=args.rounds,
                quick=args.quick,
                rate=args.rate,
                server=server,
                server_options=tuple(args.server_options.split()),
                llama="llama" not in args.without,
                cases=cases,
                report=report,
            )
            for name in names:
                TABLES[name](setup)
        report.close()
    except ServerMissing as missing:
        sys.exit(str(missing))


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--only", default=",".join(TABLES), help="tables, with commas between them (default: all)")
    add("--quick", action="store_true", help="everything small, one round: does it run? The figures mean nothing")
    add("--threads", type=int, default=2)
    add("--rounds", type=int, help="rounds that count (default: 5)")
    add("--model", default="smollm2-135m-instruct", help="a model that was pulled")
    add(
        "--format",
        help="the weights that all read: `published`, Q8_0 or whatever is here (default: as tuned)",
    )
    add("--data", type=Path, help="a folder with banking77/train.jsonl.gz: its labels are the 77 options")
    add("--rate", type=float, help="short requests a second in 'mixed' (default: a third of what the engine can do)")
    add("--server", type=Path, help="the llama-server program (default: what `make peers` installed)")
    add("--server-options", default="", help="more options for llama-server, in one string")
    add("--without", nargs="+", default=[], choices=PEERS, help="peers to leave out")
    args = parser.parse_args()
    args.rounds = args.rounds or (1 if args.quick else 5)
    return args


def _names(only: str) -> list[str]:
    names = only.split(",")
    if unknown := [name for name in names if name not in TABLES]:
        sys.exit(f"--only: no table {unknown[0]!r}; there are {', '.join(TABLES)}")
    return names


if __name__ == "__main__":
    main()
