"""A program of its own: one task for each provider in the list on stdin, and what came of it as JSON lines.

Its peak of memory can only be told from outside the provider's process, which sends what this one must not keep.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "engine"))

from paid_swarm import MESSAGE, kept, launched

DEADLINE_S = 4


def peak_bytes() -> int:
    """Of this program: `getrusage` would begin with the peak of the process that started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def answered(url: str) -> dict[str, Any]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        with launched(folder, url, timeout=60, task=f"{{seconds: {DEADLINE_S}}}") as paid:
            result = paid.run_sync({"text": MESSAGE})
            run = paid.run_id
        holds, settled = kept(folder, run)
    return {"status": result.status, "reason": result.reason or "", "ms": result.ms, "settled": settled,
            "held": [hold.micro_usd for hold in holds]}  # fmt: skip


def main() -> None:
    before = 0
    for name, url in json.load(sys.stdin):
        told = answered(url)
        before = before or peak_bytes()  # after the first, which loads all there is to load
        print(json.dumps([name, {**told, "grown": peak_bytes() - before}]), flush=True)


if __name__ == "__main__":
    main()
