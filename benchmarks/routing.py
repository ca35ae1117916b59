"""Routers and cascades on recorded outcomes of real models; no model is called.

    python benchmarks/routing.py [--only mmlu,gsm8k] [--data FOLDER] [--seeds 5]

Tables: mmlu and gsm8k (RouteLLM's pair), gsm-small and mmlupro (small models, then the strongest), cascades, pacing,
guarantee, drift. The four routers take some fifteen minutes on one core. `swarm models pull all-MiniLM-L6-v2` brings
the embedding model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from peers.report import Report
from recorded.data import DataMissing, folder
from rich.table import Table

from swarm.errors import ModelDamaged, ModelNotFound

TABLES = {  # name -> its module and function
    "mmlu": ("recorded.pairs", "mmlu"),
    "gsm8k": ("recorded.pairs", "gsm8k"),
    "gsm-small": ("recorded.small_gsm", "small_gsm"),
    "mmlupro": ("recorded.mmlupro", "small_mmlupro"),
    "cascades": ("recorded.cascades", "cascades"),
    "pacing": ("recorded.pacing", "pacing"),
    "guarantee": ("routing", "guarantee"),
    "drift": ("routing", "drift"),
}
SPLIT = {"mmlu", "gsm8k", "gsm-small", "mmlupro"}  # these are told how many random splits to take


def guarantee(data: Path, report: Report) -> None:
    from recorded import guarantee as module

    resplits = 1000
    _shown(module.table(module.guarantee(data, resplits), resplits), report)


def drift(data: Path, report: Report) -> None:
    """On streams made by their error rates: the recorded rows are not needed."""
    from recorded import drift as module

    streams, steps = 2_000, 100_000
    alarms = [(error, module.false_alarms(error, streams, steps)) for error in module.ERRORS]
    delays = [module.delay(error, after, streams) for error in module.ERRORS for after in module.AFTER]
    for table in module.tables(alarms, delays, streams, steps):
        _shown(table, report)


def _shown(table: Table, report: Report) -> None:
    rows = list(zip(*([str(cell) for cell in column.cells] for column in table.columns), strict=True))
    notes = [str(table.caption)] if table.caption else []
    report.table(str(table.title or ""), [str(column.header) for column in table.columns], rows, notes)


def main() -> None:
    args = _arguments()
    names = args.only.split(",")
    if unknown := [name for name in names if name not in TABLES]:
        sys.exit(f"--only: no table {unknown[0]!r}; there are {', '.join(TABLES)}")
    report = Report()
    try:
        data = folder(args.data)
        for name in names:
            module, function = TABLES[name]
            table: Callable[..., None] = getattr(import_module(module), function)
            table(data, report, *([args.seeds] if name in SPLIT else []))
    except (DataMissing, ModelNotFound, ModelDamaged) as error:
        sys.exit(str(error))
    report.close()


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(TABLES), help="tables, with commas between them (default: all)")
    parser.add_argument("--data", type=Path, help="the folder with the recorded rows (default: ../shared/data)")
    parser.add_argument("--seeds", type=int, default=5, help="random splits into learn and test (default: 5)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
