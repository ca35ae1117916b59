"""The clock on the wall is put forward and back while a swarm works: nothing expires early or late.

The clock is that of this program and of its hosts: what `time.time` and `time.time_ns` say there. `SWARM_FAULT_SHIFTS`
names the shifts in seconds.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from host_faults import Field, Kind, Story, said

import swarm

pytestmark = [pytest.mark.live, pytest.mark.slow]

SHIFTS = [int(s) for s in os.environ.get("SWARM_FAULT_SHIFTS", "-86400,3600").split(",")]
DEADLINE_S = 2


def jumped(folder: Path, shift: int, monkeypatch: pytest.MonkeyPatch, works: int, runtime: Kind = "ray") -> Story:
    """Tasks that never end, two that move their host's clock, and some that work, while this program's clock moves."""
    field = Field(folder, hosts=2, seconds=0.2, task_s=DEADLINE_S)
    wall, wall_ns = time.time, time.time_ns

    async def jump(running: swarm.Swarm, story: Story) -> None:
        await asyncio.sleep(0.5)
        monkeypatch.setattr(time, "time", lambda: wall() + shift)
        monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + shift * 10**9)
        story.faults.append(time.monotonic())

    return field.play([*["never"] * 4, *[f"shifts{shift}"] * 2, *["works"] * works], jump, runtime=runtime)


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_clock_that_jumps_ends_nothing_early_or_late(
    tmp_path: Path, shift: int, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    """Tasks are done as ever; those whose time runs out end when it does, by the clock that does not jump."""
    story = jumped(tmp_path, shift, monkeypatch, works=60)
    late = [each for each in story.lived if each.key.startswith("never")]
    took = [each.answered - each.given for each in late]
    said(
        pytestconfig, story.figures(f"clock moved by {shift:+,} s, deadlines of {DEADLINE_S} s after {max(took):.2f} s")
    )
    assert story.audit is not None and story.audit.problems == []
    assert {each.result.status for each in late if each.result} == {"deadline"}
    assert min(took) >= DEADLINE_S
    assert {each.result.status for each in story.lived if each.result and each not in late} == {"done"}
