"""A program of its own: `hostile_inputs.py files|wire N SEED FOLDER` tries N hostile inputs and says how it went.

One JSON line: how many were fine and refused, the most processor seconds of one, and the most memory of one. What is
being tried lies in the folder, so that it can be looked at when the process dies of it.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from paid_tasks import peak_bytes

sys.path.insert(0, str(Path(__file__).parents[1]))

import hostile


def main() -> None:
    what, count, first, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    strategy = hostile.swarm_files() if what == "files" else hostile.wire_messages()
    seen: Counter[str] = Counter()
    slowest, most, peak = 0.0, 0, 0

    @seed(first)
    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def tried(data: bytes) -> None:
        nonlocal slowest, most, peak
        (folder / "tried").write_bytes(data)
        forget_peak()
        before, began = peak_bytes(), time.process_time()
        seen[hostile.checked(data, folder) if what == "files" else hostile.decoded(data)] += 1
        took, grown = time.process_time() - began, peak_bytes() - before
        if took > slowest:
            slowest = took
            (folder / "slowest").write_bytes(data)
        if grown > most:
            most = grown
            (folder / "largest").write_bytes(data)

    hostile.checked(b"schema: swarm/v1\n", folder)  # loads all there is to load
    hostile.checked((hostile.HERE.parent / "configs" / "minimal.yaml").read_bytes(), folder)
    tried()
    told: dict[str, Any] = {**seen, "slowest_s": round(slowest, 3), "grown_mb": round(most / 2**20, 1)}
    print(json.dumps(told))


def forget_peak() -> None:
    """From here on, the peak of memory is counted anew (man 5 proc, clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
