"""Ten times as much is asked as can be done, of a specialist that works at a tenth of its speed.

`SWARM_FAULT_SECONDS` says for how long. What is measured stands in the figures; nothing asserted depends on time.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from host_faults import record, resident_mb, said

from protocols.answers import Answer, Ask, Failed
from swarm.bus.bus import Bus
from swarm.runtime.hosts import Hosts
from swarm.runtime.in_process import InProcessRuntime
from swarm.runtime.launch import planned
from swarm.runtime.placement import place, room

pytestmark = [pytest.mark.live, pytest.mark.slow]

SECONDS = float(os.environ.get("SWARM_FAULT_SECONDS", "10"))
SLOWED_S, MAILBOX, HOSTS = 0.5, 32, 2
CAPACITY = HOSTS * (MAILBOX - MAILBOX // 4) / SLOWED_S  # asks of the slow kind that can be done in a second
OTHERS = 40  # asks of the other kind in a second
GROWTH_MB = 64

SWARM = f"""\
schema: swarm/v1
name: overload
specialists:
  slow: {{kind: tool, tools: slow.py, input: [n], output_schema: {{type: object}}}}
  other: {{kind: tool, tools: other.py, input: [n], output_schema: {{type: object}}}}
steps:
  slow: {{specialist: slow, input: {{n: "${{input.n}}"}}}}
  other: {{specialist: other, input: {{n: "${{input.n}}"}}}}
runtime: {{kind: ray, hosts: {HOSTS}, cpus: 1, mailbox: {MAILBOX}}}
"""
TOOL = "import asyncio\nasync def run(n):\n    await asyncio.sleep({seconds})\n    return {{'n': n}}\n"


@dataclass(slots=True)
class Load:
    """What came of asks of one kind: seconds until they were answered, or refused."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    other: list[Failed] = field(default_factory=list)


@asynccontextmanager
async def hosts(folder: Path) -> AsyncIterator[tuple[Bus, Hosts]]:
    from swarm.runtime.on_ray import RayRuntime

    (folder / "overload.yaml").write_text(SWARM)
    (folder / "slow.py").write_text(TOOL.format(seconds=SLOWED_S))
    (folder / "other.py").write_text(TOOL.format(seconds=0.02))
    plan = planned(folder / "overload.yaml")
    runtime = RayRuntime(None, HOSTS, 1, None)
    placed = Hosts(place(plan, frozenset(), together=False), runtime, InProcessRuntime(), room=room(plan))
    async with AsyncExitStack() as owned:
        owned.push_async_callback(runtime.close)
        yield await placed.start(owned), placed


async def offered(bus: Bus, specialist: str, a_second: float, seconds: float) -> Load:
    """So many asks a second for a while, whether they are answered or not; waits for the last of them."""
    load, asked = Load(), set[asyncio.Task[None]]()

    async def one(n: int) -> None:
        began = time.monotonic()
        ask = Ask(id=f"a-{specialist}-{began}-{n}", task="t", step=specialist, specialist=specialist, tier="code",
                  input={"n": n}, max_tokens=0)  # fmt: skip
        reply = await bus.ask(ask)
        took = time.monotonic() - began
        match reply:
            case Answer():
                load.answered.append(took)
            case Failed(reason="overloaded"):
                assert reply.retry_ms is not None and reply.retry_ms > 0
                load.refused.append(took)
            case _:
                load.other.append(reply)

    began = time.monotonic()
    n = 0
    while (passed := time.monotonic() - began) < seconds:
        while n < passed * a_second:
            asked.add(task := asyncio.create_task(one(n)))
            task.add_done_callback(asked.discard)
            n += 1
        await asyncio.sleep(0.01)
    await asyncio.gather(*asked)
    return load


def ms(seconds: list[float], share: float) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))] * 1000 if seconds else 0.0


async def test_too_much_of_one_kind_is_refused_and_harms_no_other(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Nothing is lost: each ask is answered, or refused with a time to come back. No process grows with refusals."""
    async with hosts(tmp_path) as (bus, placed):
        pids = [os.getpid(), *(ready.pid for ready in placed.ready.values())]
        await offered(bus, "slow", CAPACITY, 2.0)
        calm = await offered(bus, "other", OTHERS, min(10.0, SECONDS))
        before = [resident_mb(pid) for pid in pids]
        flood, others = await asyncio.gather(
            offered(bus, "slow", 10 * CAPACITY, SECONDS), offered(bus, "other", OTHERS, SECONDS)
        )
        grown = [resident_mb(pid) - mb for pid, mb in zip(pids, before, strict=True)]
        statistics = bus.statistics()
    line = (
        f"10x overload for {SECONDS:.0f} s: {len(flood.answered):,} answered, {len(flood.refused):,} refused, all "
        f"within {ms(flood.refused, 1.0):.1f} ms (p99 {ms(flood.refused, 0.99):.1f}); the other kind's p99 "
        f"{ms(calm.answered, 0.99):.0f} -> {ms(others.answered, 0.99):.0f} ms, {len(others.refused)} refused; "
        f"memory of driver and hosts {', '.join(f'{mb:+.1f}' for mb in grown)} MB"
    )
    record(line)
    said(pytestconfig, line)
    assert flood.other == others.other == calm.other == []
    assert flood.refused and len(flood.answered) >= CAPACITY
    assert others.refused == [] and len(others.answered) >= OTHERS * SECONDS - 1
    assert statistics.unanswered == 0 and statistics.refused == len(flood.refused)
    assert max(grown) < GROWTH_MB
