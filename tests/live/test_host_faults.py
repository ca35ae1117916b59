"""The fault tests of hosts in short: real Ray, real signals. tests/faults has them at length."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from host_faults import Field, Story, no_fault, stop_one

import swarm


def wrong(story: Story, poison: set[str]) -> list[object]:
    """Whoever was lost, what was done twice, and what failed besides the poison."""
    assert story.audit is not None
    failed = {each.key for each in story.lived if each.result in story.unexplained}
    missing = len(story.lived) - story.audit.accepted
    return [*story.audit.problems, *(failed ^ poison), *([missing] if missing else [])]


def test_poison_harms_nobody_else(tmp_path: Path) -> None:
    """One message raises and one crashes whoever reads it: three attempts each, and their neighbours are answered."""
    field = Field(tmp_path, hosts=2, seconds=0.1, writes=False)
    story = field.play([*["works"] * 40, "raises", *["works"] * 40, "crashes", *["works"] * 40], no_fault)
    assert wrong(story, {"raises-40", "crashes-81"}) == []
    assert story.audit is not None and story.statistics is not None
    assert [story.audit.effects[f"look:{key}"] for key in ("raises-40", "crashes-81")] == [3, 3]
    letters = {letter.envelope.delivery: letter.cause for letter in story.statistics.dead_letters}
    assert len(story.statistics.dead_letters) == 2 and set(letters) == {3}


def test_a_host_that_stands_still_is_replaced(tmp_path: Path) -> None:
    """Stopped for eight seconds: its work is done elsewhere long before, and its process is ended."""
    field = Field(tmp_path, hosts=2, seconds=0.2)
    pids: list[int] = []

    async def stop(running: swarm.Swarm, story: Story) -> None:
        pids.append(running.hosts()["host-1"].pid)
        await stop_one(1.0, 8.0)(running, story)

    story = field.play(["works"] * 200, stop)
    assert story.faults and wrong(story, set()) == []
    assert story.statistics is not None and story.statistics.redelivered > 0
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pids[0]}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{pids[0]}").exists()


async def test_overload_is_refused_and_told_when_to_come_back(tmp_path: Path) -> None:
    """Ten times what can be done for three seconds: answered or refused, and another kind of ask is always answered."""
    from test_hosts_overload import CAPACITY, hosts, offered

    async with hosts(tmp_path) as (bus, _):
        flood, others = await asyncio.gather(offered(bus, "slow", 10 * CAPACITY, 3.0), offered(bus, "other", 20, 3.0))
    assert flood.refused and flood.answered and others.answered
    assert (flood.other, others.other, others.refused) == ([], [], [])


@pytest.mark.parametrize("shift", [-86400, 3600])
def test_a_clock_that_jumps_ends_nothing_early_or_late(
    tmp_path: Path, shift: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wall clock moves while tasks run: they are done, and deadlines are what they were."""
    from test_hosts_clock import DEADLINE_S, jumped

    story = jumped(tmp_path, shift, monkeypatch, works=20, runtime="in-process")
    late = [each for each in story.lived if each.key.startswith("never")]
    assert {each.result.status for each in late if each.result} == {"deadline"}
    assert min(each.answered - each.given for each in late) >= DEADLINE_S
    assert {each.result.status for each in story.lived if each.result and each not in late} == {"done"}
