"""Whole nodes are killed, one after the other, while the swarm works on.

`SWARM_FAULT_SECONDS` says for how long, `SWARM_FAULT_EVERY` after how many seconds the next one dies.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from host_faults import Field, said
from raylets import kill_raylets, raylets

pytestmark = [pytest.mark.live, pytest.mark.slow]

SECONDS = float(os.environ.get("SWARM_FAULT_SECONDS", "40"))
EVERY_S = float(os.environ.get("SWARM_FAULT_EVERY", "15"))
A_SECOND = 20  # about as many tasks are done in one


def test_nodes_that_are_killed_lose_and_double_nothing(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Three raylets with a host each; one of them is killed every so often and another takes its place."""
    field = Field(tmp_path, hosts=3, seconds=0.6)
    with raylets(3) as cluster:
        fault = kill_raylets(cluster, 3, EVERY_S, back_s=EVERY_S / 3)
        story = field.play(["works"] * int(SECONDS * A_SECOND), fault, address=cluster.address)
    said(pytestconfig, story.figures(f"SIGKILL of one of three raylets every {EVERY_S:.0f} s"))
    assert story.faults and story.audit is not None
    assert (story.audit.problems, story.unexplained) == ([], [])
    assert sum(story.statuses.values()) == story.audit.accepted
