"""SIGKILL at every marked point of the dispatcher, then a resume: nothing is lost, made or paid twice, or overspent.

What happened is counted outside of the framework, in files that asks and writes go into as they happen.
`SWARM_KILL_SEEDS` says with how many seeds each point is tried.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import dispatcher_killed
import msgspec
import pytest

from protocols.ids import RunId
from protocols.money import Amount
from protocols.records import Attempt, Balance
from protocols.tasks import Result, Task
from swarm.dispatch.outbox import Outbox
from swarm.plan.plan import Plan
from swarm.state.store import open_store

SEEDS = int(os.environ.get("SWARM_KILL_SEEDS", "2"))


@dataclass(frozen=True)
class Seen:
    """What there is between two lives. `asks`: how often each item/step/tier has left; `writes`: each key's calls."""

    run: RunId
    items: dict[str, str]  # of every accepted task
    attempts: list[Attempt]
    results: dict[str, Result]
    balance: Balance
    effects: dict[str, str]  # key -> state
    asks: Counter[str]
    writes: Counter[str]
    billed: int

    def name(self, attempt: Attempt) -> str:
        return f"{self.items[attempt.task]}/{attempt.step}/{attempt.tier}"

    @property
    def answered(self) -> Counter[str]:
        """What the journal has an answer of."""
        return Counter(self.name(a) for a in self.attempts if a.confidence is not None)

    @property
    def charged(self) -> int:
        """By the journal, in micro-dollars."""
        return sum(attempt.micro_usd for attempt in self.attempts)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what every killed program has left."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, dispatcher_killed.__file__, str(folder), str(SEEDS)]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=3000)
    ends = [line.split() for line in made.stdout.splitlines() if line.startswith(dispatcher_killed.POINTS)]
    assert len(ends) == len(dispatcher_killed.POINTS) * SEEDS
    assert {end for *_, end in ends} == {"-9"}, "every program came to its point"
    return folder


@pytest.mark.parametrize("point", dispatcher_killed.POINTS)
def test_killed_dispatcher_is_gone_on_with(killed: Path, point: str) -> None:
    """Each accepted task ends once; what was journalled is not asked again, writes are made once, and money is kept."""
    plan = dispatcher_killed.planned(killed / "swarm.yaml")
    for seed in range(SEEDS):
        asyncio.run(look_at(plan, killed / f"{point}-{seed}"))


async def look_at(plan: Plan, base: Path) -> None:
    before = await seen(base)
    spent = before.balance.settled + before.balance.held
    assert before.billed <= spent.micro_usd <= 2200, "what has left was held"

    results = await dispatcher_killed.go_on(plan, base, before.run)
    after = await seen(base)
    assert sorted(result.task for result in results) == sorted(before.items) == sorted(after.results)
    assert before.results.items() <= after.results.items()
    assert {result.status for result in results} <= {"done", "degraded", "person"}

    asked = after.asks - before.asks
    assert not asked.keys() & before.answered.keys(), "what was journalled is not asked again"
    assert set(asked.values()) <= {1} and set(after.answered.values()) <= {1}
    finished = Counter((a.task, a.step) for a in after.attempts if a.outcome in ("accepted", "degraded"))
    assert set(finished.values()) <= {1}

    look_at_writes(after)
    assert after.balance.held == Amount(), "no hold outlives its time"
    assert after.billed <= after.balance.settled.micro_usd <= 2200
    assert after.balance.settled.micro_usd <= spent.micro_usd + after.charged - before.charged, "nothing is paid twice"


def look_at_writes(after: Seen) -> None:
    """Each was made once; nobody knows of those that were under way at most, and a person is told of them."""
    paid = {task for task, result in after.results.items() if result.status != "person"}
    unknown = [key for key, state in after.effects.items() if state == "unknown"]
    done = [key for key, state in after.effects.items() if state == "done"]
    assert set(after.writes.values()) <= {1} and after.writes.keys() <= after.effects.keys()
    assert {*done, *unknown} == after.effects.keys() and set(done) <= after.writes.keys()
    assert (len(done), len(unknown)) == (len(paid), len(after.results) - len(paid))
    assert len(unknown) <= 3, "so many tasks are worked on at once"


async def seen(base: Path) -> Seen:
    """The books must be right, too."""
    store = await open_store(base.with_suffix(".db"))
    try:
        assert await store.problems() == []
        (run,) = await store.runs()
        tasks = [msgspec.msgpack.decode(body, type=Task) for _, body in await store.tasks(run.id)]
        results = await store.results(run.id)
        effects = await Outbox(store.records, run.id).all()
        asks = [line.split() for line in _lines(base.with_suffix(".asks"))]
        return Seen(
            run=run.id, items={task.id: task.input["item"] for task in tasks}, attempts=await store.attempts(run.id),
            results={result.task: result for result in results}, balance=await store.balance(f"run:{run.id}"),
            effects={key: effect.state for key, (_, effect) in effects.items()},
            asks=Counter(name for name, _ in asks), billed=sum(int(price) for _, price in asks),
            writes=Counter(line.split()[0] for line in _lines(base.with_suffix(".world"))),
        )  # fmt: skip
    finally:
        await store.close()


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.is_file() else []
