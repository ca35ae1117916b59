"""A host that does not die but stands still, and one whose clock is put forward or back.

`SWARM_FAULT_STOPPED` says for how many seconds the host is stopped.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from host_faults import Field, said, stop_one

pytestmark = [pytest.mark.live, pytest.mark.slow]

STOPPED_S = float(os.environ.get("SWARM_FAULT_STOPPED", "8"))


def test_a_host_that_stands_still_loses_and_doubles_nothing(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """SIGSTOP: it is found out, its work is done by others, and what it says afterwards counts for nothing."""
    field = Field(tmp_path, hosts=3, seconds=0.3)
    story = field.play(["works"] * int(STOPPED_S * 50), stop_one(1.0, STOPPED_S))
    said(pytestconfig, story.figures(f"SIGSTOP of a host for {STOPPED_S:.0f} s"))
    assert story.faults and story.audit is not None and story.statistics is not None
    assert (story.audit.problems, story.unexplained) == ([], [])
    assert story.statistics.redelivered > 0, "it had work when it was stopped"
