"""Hostile swarm files and wire messages: a typed error or none, in no time and little memory, and the process lives.

They are tried in a process of its own. `SWARM_HOSTILE` says how many of each are made.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = int(os.environ.get("SWARM_HOSTILE", "200"))
HERE = Path(__file__).parent
MOST_S, MOST_MB = 1.0, 100


def ran(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HERE / program), *arguments], capture_output=True, text=True, check=False,
        timeout=120 + COUNT,
    )  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("what", ["files", "wire"])
def test_damaged_inputs_are_understood_or_refused(what: str, seed: int, tmp_path: Path) -> None:
    """What hypothesis makes of good ones, knowing how they are built: each is over soon, and costs little memory."""
    done = ran("hostile_inputs.py", what, str(COUNT), str(seed), str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    print(what, told)
    assert told.get("fine", 0) + told["refused"] >= COUNT
    assert told["slowest_s"] < MOST_S, (tmp_path / "slowest").read_bytes()[:2000]
    assert told["grown_mb"] < MOST_MB


@pytest.mark.parametrize("what", ["files", "wire"])
def test_fuzzed_inputs_are_understood_or_refused(what: str, tmp_path: Path) -> None:
    """What atheris finds on its way through the code, from the same good ones."""
    pytest.importorskip("atheris", reason="atheris is not installed: pip install atheris")
    done = ran("fuzz_inputs.py", what, str(COUNT), str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tmp_path.glob("found-*"))
