"""Random work for a while: nothing is left behind, nothing grows, and whatever is refused says why.

`SWARM_SOAK_SECONDS` is how long it lasts, `SWARM_SOAK_SEED` what is asked, `SWARM_SOAK_MODEL` the path of a model that
is to do it in place of the tiny one. Memory is short on purpose: prefixes are evicted and read from disk again.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from random_work import RandomWork, check_generated, check_scored

from swarm.engine.base import EngineSpec
from swarm.engine.llama.engine import LlamaEngine
from swarm.errors import OutOfTime, PromptTooLong, SchemaUnsupported

pytestmark = [pytest.mark.live, pytest.mark.slow]

SECONDS = float(os.environ.get("SWARM_SOAK_SECONDS", "20"))
SEED = int(os.environ.get("SWARM_SOAK_SEED", "1"))
CONTEXT = 1024
CLIENTS = 24
ROUND_S = 4.0  # of work between two looks at an idle engine
MOST_GROWTH = 32 * 1024  # KiB
EXPECTED = (PromptTooLong, SchemaUnsupported, OutOfTime)


@pytest.fixture
def engine(tiny_path: str, tmp_path: Path) -> Iterator[LlamaEngine]:
    path = os.environ.get("SWARM_SOAK_MODEL", tiny_path)
    spec = EngineSpec(path, threads=1, context=CONTEXT, sequences=12, batch=64, prefix_folder=str(tmp_path))
    opened = LlamaEngine.open(spec)
    yield opened
    opened.close()


class Clients:
    """Ask for one thing after the other, and sometimes lose patience."""

    def __init__(self, engine: LlamaEngine) -> None:
        self.outcomes: Counter[str] = Counter()
        self._engine = engine
        self._chance = Random(SEED)
        self._work = RandomWork(self._chance, CONTEXT)

    async def work(self, seconds: float) -> None:
        """All of them, side by side. Any failure that is not an expected one is raised."""
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._one(until))

    async def _one(self, until: float) -> None:
        while time.monotonic() < until:
            task = asyncio.create_task(self._ask())
            if self._chance.random() < 0.15:
                await asyncio.sleep(self._chance.choice((0, 0.001, 0.02, 0.2)))
                task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            if outcome is not None and not isinstance(outcome, (*EXPECTED, asyncio.CancelledError)):
                raise outcome
            self.outcomes["answered" if outcome is None else type(outcome).__name__] += 1

    async def _ask(self) -> None:
        kind = self._chance.choice(("score", "score", "generate", "generate", "candidates"))
        if kind == "score":
            asked = self._work.score()
            check_scored(asked, await self._engine.score(asked))
            return
        request = self._work.generate()
        n = self._chance.randint(2, 4) if kind == "candidates" else 1
        texts = await self._engine.candidates(request, n) if n > 1 else (await self._engine.generate(request),)
        assert len(texts) == n
        for text in texts:
            check_generated(request, text)


async def left_behind(engine: LlamaEngine) -> str:
    """What an engine without work still holds beside its prefixes, in words; nothing when all is well."""
    found = "it is still at work"
    deadline = time.monotonic() + 10  # what was cancelled or computed for others may be on its way
    while time.monotonic() < deadline:
        await asyncio.sleep(0.02)
        if engine._loop._lanes[None].idle and not engine._loop._replies:
            found = _differences(engine)
            if not found:
                break
    return found


def _differences(engine: LlamaEngine) -> str:
    lane = engine._loop._lanes[None]
    scheduler, queue = lane.scheduler, lane.scheduler.queue
    prefixes = {node.sequence: node.end for node in scheduler.tree}
    numbers, every = sorted([*scheduler._free, *prefixes]), list(range(scheduler.limits.sequences))
    cells = sum(len(node.tokens) for node in scheduler.tree)
    held = lane.held()
    checks = {
        f"{len(numbers)} numbers, lost are {set(every) - set(numbers)}": numbers == every,
        f"llama.cpp holds {held}, the tree {prefixes}": held == prefixes,
        f"{scheduler.cells} cells counted, {cells} in the tree": scheduler.cells == scheduler.tree.cells == cells,
        "a prefix has users": not any(node.users for node in scheduler.tree),
        "the queue remembers work": not (queue._came or queue._due or queue._names or queue._passed),
    }
    return "; ".join(what for what, holds in checks.items() if not holds)


def resident() -> int:
    """KiB of this process that are in memory."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc, which is not here")
async def test_random_work_leaves_nothing_behind(engine: LlamaEngine, capsys: pytest.CaptureFixture[str]) -> None:
    """Idle engines hold their prefixes and nothing else; a process does not grow after a quarter of the time."""
    clients, started, before = Clients(engine), time.monotonic(), None
    while (passed := time.monotonic() - started) < SECONDS:
        if before is None and passed >= SECONDS / 4:
            before = resident()
        await clients.work(min(ROUND_S, SECONDS / 4, SECONDS - passed))
        found = await left_behind(engine)
        assert not found, f"{found} (SWARM_SOAK_SEED={SEED})"
    assert before is not None
    after, done, outcomes = resident(), engine.statistics(), clients.outcomes
    with capsys.disabled():
        print(
            f"\n{SECONDS:.0f} s, {outcomes.total():,} requests {dict(outcomes)}, {done.cancelled:,} works given up; "
            f"{done.tokens_decoded:,} tokens decoded, {done.tokens_restored:,} restored, drafts "
            f"{done.tokens_drafted:,}; resident {before / 1024:.1f} → {after / 1024:.1f} MiB"
        )
    assert set(outcomes) == {"answered", "CancelledError", *(error.__name__ for error in EXPECTED)}
    assert done.tokens_restored > 0
    assert after - before < MOST_GROWTH
