"""A swarm of plain tools on real Ray hosts, faults that befall them, and how long it took to recover."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import signal
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from auditor import LOGGED, Audit, audit

import swarm
from protocols.tasks import Result
from swarm.bus.letters import BusStatistics

# Ray's nodes and drivers agree on a token of these tests' own; set before anything imports ray.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

SWARM = """\
schema: swarm/v1
name: faults
specialists:
  look: {kind: tool, tools: look.py, input: [key, kind], output_schema: {type: object, required: [saw]}}
  book: {kind: tool, tools: book.py, input: [key, saw], effects: EFFECTS, output_schema: {type: object}}
steps:
  look: {specialist: look, input: {key: "${input.key}", kind: "${input.kind}"}}
  book: {specialist: book, input: {key: "${input.key}", saw: "${look.saw}"}}
budget: {run: {usd: 1}, task: {usd: 0.01, seconds: SECONDS}}
runtime: {kind: ray, hosts: HOSTS, cpus: 1, max_in_flight: 24}
"""

# How a message may be: it works, raises, kills its process, stops it from doing anything else, or never ends.
LOOK = """\
import asyncio, ctypes, time
LOG = {log!r}
{logged}
def move_clock(by, wall=time.time, wall_ns=time.time_ns):
    time.time, time.time_ns = lambda: wall() + by, lambda: wall_ns() + by * 10**9

async def run(key, kind):
    logged(f"look:{{key}}")
    match kind:
        case "raises":
            raise ValueError("this one cannot be looked at")
        case "crashes":
            ctypes.string_at(0)
        case "hangs":
            time.sleep(3600)
        case "never":
            await asyncio.sleep(3600)
        case _ if kind.startswith("shifts"):
            move_clock(int(kind.removeprefix("shifts")))
    await asyncio.sleep({seconds} * (0.5 + hash(key) % 100 / 100))
    return {{"saw": key}}
"""
BOOK = """\
import time
LOG = {log!r}
{logged}
def run(key, saw):
    time.sleep({seconds} / 2)
    logged(f"book:{{key}}")
    return {{"done": saw}}
"""


@dataclass(slots=True)
class Lived:
    """A task from outside: when it was given and when its answer came, on the monotonic clock."""

    key: str
    given: float
    answered: float = 0.0
    result: Result | None = None


@dataclass(slots=True)
class Story:
    """What befell a swarm, and what came of it. `faults`: the moments at which something was done to a host."""

    writes: bool
    lived: list[Lived] = field(default_factory=list)
    faults: list[float] = field(default_factory=list)
    audit: Audit | None = None
    statistics: BusStatistics | None = None

    @property
    def statuses(self) -> Counter[str]:
        return Counter(each.result.status for each in self.lived if each.result is not None)

    def of(self, key: str) -> Result:
        (found,) = (each.result for each in self.lived if each.key == key and each.result is not None)
        return found

    @property
    def unexplained(self) -> list[Result]:
        """Tasks that are not done, though no host died in the middle of their write."""
        ends = [each.result for each in self.lived if each.result is not None]
        return [
            r for r in ends if r.status != "done" and not (self.writes and (r.reason or "").startswith("step 'book'"))
        ]

    def recoveries(self) -> list[float]:
        """Of each fault, how long it took until every task was answered that was under way when it happened."""
        found = []
        for at in self.faults:
            ends = [each.answered - at for each in self.lived if each.given < at < each.answered]
            found.append(max(ends, default=0.0))
        return found

    def figures(self, what: str) -> str:
        """In one line, which is recorded too."""
        took = sorted(self.recoveries()) or [0.0]
        p95 = took[min(len(took) - 1, int(0.95 * len(took)))]
        seconds = max(each.answered for each in self.lived) - min(each.given for each in self.lived)
        assert self.statistics is not None and self.audit is not None
        line = (
            f"{what}: {len(self.lived):,} tasks in {seconds:.1f} s {dict(self.statuses)}, {len(self.faults)} "
            f"faults, recovery p50 {statistics.median(took):.1f} s, p95 {p95:.1f} s; {self.statistics.restarts} hosts "
            f"replaced, {self.statistics.redelivered} asks sent again, {len(self.statistics.dead_letters)} dead "
            f"letters, {len(self.audit.problems)} problems"
        )
        record(line)
        return line


def record(line: str) -> None:
    """Into the file that `SWARM_FIGURES` names, if any."""
    if path := os.environ.get("SWARM_FIGURES"):
        with open(path, "a") as out:
            out.write(line + "\n")


def said(config: pytest.Config, line: str) -> None:
    """Shown though the test passes."""
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n" + line)


Kind = Literal["ray", "in-process"]
Fault = Callable[[swarm.Swarm, Story], Awaitable[None]]


class Field:
    """A folder with the swarm, its log and its store. `writes`: its second step writes, and must not be repeated."""

    def __init__(
        self, folder: Path, *, hosts: int = 3, seconds: float = 0.1, task_s: int = 60, writes: bool = True
    ) -> None:
        self.writes = writes
        self.file, self.log, self.store = folder / "faults.yaml", folder / "calls.log", folder / "store.db"
        effects = "write" if writes else "read"
        self.file.write_text(
            SWARM.replace("HOSTS", str(hosts)).replace("SECONDS", str(task_s)).replace("EFFECTS", effects)
        )
        known = {"log": str(self.log), "logged": LOGGED, "seconds": seconds}
        (folder / "look.py").write_text(LOOK.format(**known))
        (folder / "book.py").write_text(BOOK.format(**known))

    def play(
        self,
        kinds: Iterable[str],
        fault: Fault,
        *,
        address: str | None = None,
        runtime: Kind = "ray",
        at_once: int = 24,
    ) -> Story:
        """Answer one item of each kind while `fault` does its worst, then let the auditor look."""
        story = Story(self.writes)
        with swarm.launch(self.file, runtime=runtime, address=address, store=self.store) as running:
            asyncio.run(_played(running, story, list(kinds), fault, at_once))
            story.statistics = running.statistics()
            run = running.run_id
        writes = [f"book:{each.key}" for each in story.lived] if self.writes else []
        done = [f"book:{each.key}" for each in story.lived if each.result is not None and each.result.status == "done"]
        story.audit = asyncio.run(audit(self.store, run, self.log, writes, done))
        return story


async def _played(running: swarm.Swarm, story: Story, kinds: list[str], fault: Fault, at_once: int) -> None:
    room = asyncio.Semaphore(at_once)

    async def one(i: int, kind: str) -> None:
        async with room:
            lived = Lived(f"{kind}-{i}", time.monotonic())
            story.lived.append(lived)
            lived.result = await running.run({"key": lived.key, "kind": kind})
            lived.answered = time.monotonic()

    worst = asyncio.create_task(fault(running, story))
    await asyncio.gather(*(one(i, kind) for i, kind in enumerate(kinds)))
    worst.cancel()
    await asyncio.gather(worst, return_exceptions=True)


def kill_now_and_then(every_s: float, seed: int = 1) -> Fault:
    """SIGKILL for a host chosen at random."""
    chance = random.Random(seed)

    async def fault(running: swarm.Swarm, story: Story) -> None:
        while True:
            await asyncio.sleep(every_s)
            host = chance.choice(sorted(running.hosts()))
            try:
                os.kill(running.hosts()[host].pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it is being replaced
            story.faults.append(time.monotonic())

    return fault


def stop_one(after_s: float, for_s: float) -> Fault:
    """SIGSTOP for a host, SIGCONT later."""

    async def fault(running: swarm.Swarm, story: Story) -> None:
        await asyncio.sleep(after_s)
        pid = running.hosts()["host-1"].pid
        os.kill(pid, signal.SIGSTOP)
        story.faults.append(time.monotonic())
        await asyncio.sleep(for_s)
        with contextlib.suppress(ProcessLookupError):  # it was ended, as it should be
            os.kill(pid, signal.SIGCONT)

    return fault


async def no_fault(running: swarm.Swarm, story: Story) -> None:
    """All is well, but for what the messages do."""


def resident_mb(pid: int | str = "self") -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0
