"""The clock of a whole program is put forward and back: holds, deadlines and the watch over other programs stay right.

libfaketime moves it, for everything in that program that asks the system. `SWARM_FAULT_SHIFTS` names the shifts in
seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import clock_moved
import pytest
from host_faults import said
from postgres_server import postgres

__all__ = ["postgres"]

pytestmark = pytest.mark.slow

SHIFTS = [int(s) for s in os.environ.get("SWARM_FAULT_SHIFTS", "-86400,3600").split(",")]
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new store is, of each engine."""
    if not LIBRARIES:
        pytest.skip("libfaketime is not on this machine; `apt-get install faketime` brings it")
    if request.param == "sqlite":
        return str(tmp_path / "holds.db")
    url: str = request.getfixturevalue("postgres").new()
    return url


def moved(place: str, folder: Path, shift_s: int) -> dict[str, Any]:
    """What the program tells whose clock was moved."""
    clock = folder / "clock"
    clock.write_text("+0")
    fake = {
        "LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    command = [sys.executable, clock_moved.__file__, place, str(folder), str(shift_s)]
    done = subprocess.run(command, env=os.environ | fake, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize("shift", SHIFTS)
def test_moved_clock_ends_no_hold_or_deadline_early_or_late(
    place: str, tmp_path: Path, shift: int, pytestconfig: pytest.Config
) -> None:
    """Unsent holds lapse, those of a dead program are ended and deadlines end tasks when they should; work goes on."""
    told = moved(place, tmp_path, shift)
    holds, tasks = told["holds"], told["tasks"]
    lapsed = [holds["before"], holds["after"]]
    late = [took for _, status, took, _ in tasks if status == "deadline"]
    assert abs(holds["moved"] - shift) < 1, "the clock was moved"
    said(
        pytestconfig, f"clock moved by {shift:+,} s: holds of {clock_moved.HOLD_S} s lapsed after {max(lapsed):.2f} s, "
        f"a dead program's ended after {holds['dead']:.2f} s, deadlines of {clock_moved.DEADLINE_S} s after "
        f"{max(late):.2f} s",
    )  # fmt: skip
    assert all(clock_moved.HOLD_S - 0.1 <= took <= clock_moved.HOLD_S + 1 for took in lapsed)
    assert clock_moved.DEAD_AFTER_S - 0.1 <= holds["dead"] <= clock_moved.DEAD_AFTER_S * 4 / 3 + 1
    ends = {(sleeps, status) for sleeps, status, *_ in tasks}
    assert ends == {(0.1, "done"), (1.0, "done"), (3.0, "deadline")}, tasks
    assert all(clock_moved.DEADLINE_S <= took <= clock_moved.DEADLINE_S + 1 for took in late), tasks
