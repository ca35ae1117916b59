"""Hosts are killed at random while a thousand tasks run: nothing is lost, nothing is done twice.

`SWARM_FAULT_TASKS` says how many tasks, `SWARM_FAULT_SEED` which hosts die.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from host_faults import Field, kill_now_and_then, said

pytestmark = [pytest.mark.live, pytest.mark.slow]

TASKS = int(os.environ.get("SWARM_FAULT_TASKS", "200"))
SEED = int(os.environ.get("SWARM_FAULT_SEED", "1"))


def test_hosts_that_are_killed_lose_and_double_nothing(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """SIGKILL of a random host every two seconds."""
    field = Field(tmp_path, hosts=4, seconds=0.3)
    story = field.play(["works"] * TASKS, kill_now_and_then(2.0, SEED))
    said(pytestconfig, story.figures("SIGKILL of a random host every 2 s"))
    assert story.audit is not None
    assert (story.audit.problems, story.unexplained) == ([], [])
    assert sum(story.statuses.values()) == story.audit.accepted == TASKS
