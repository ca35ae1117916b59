"""Programs that run a whole swarm and kill themselves at a marked point of its dispatcher, one for each point and seed.

    python dispatcher_killed.py FOLDER SEEDS

Each leaves FOLDER/<point>-<seed>.db, and beside it `.asks`: a line "item/step/tier micro_usd" for every ask that has
left, as its host or its provider would count it; and `.world`: a line "key item" for every call of the tool that
writes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from protocols.answers import Answer, Ask, Failed
from protocols.ids import new_id
from protocols.tasks import Result, Task
from swarm.bus.bus import Bus
from swarm.dispatch.holds import Holds
from swarm.plan.plan import Plan
from swarm.runtime.in_process import InProcessRuntime
from swarm.runtime.launch import planned
from swarm.runtime.session import Session
from swarm.state.lease import LeasedStore

SWARM = """\
schema: swarm/v1
name: parcels
models:
  small: {replay: said.jsonl, as: small}
  strong: {replay: said.jsonl}
specialists:
  sort: {kind: classify, labels: {lost: not there, late: on its way}, input: [text, id], tiers: [small, strong]}
  look_up: {kind: tool, tools: look_up.py, input: [id, label], output_schema: {type: object, required: [order]}}
  pay:
    kind: tool
    tools: pay.py
    input: [id, order, mood]
    effects: write
    output_schema: {type: object, required: [paid]}
    tiers: [code, person]
steps:
  sort: {specialist: sort, input: {text: "${input.text}", id: "${input.item}"}}
  mood: {specialist: sort, input: {text: "${input.text}", id: "${input.item}"}}
  look_up: {specialist: look_up, input: {id: "${input.item}", label: "${sort.label}"}}
  pay: {specialist: pay, input: {id: "${input.item}", order: "${look_up.order}", mood: "${mood.label}"}}
escalation: {accept_at: 0.7}
budget:
  run: {usd: 0.0022, tokens: 100000}
  task: {usd: 0.0008, tokens: 1000}
  on_exhausted: degrade
runtime: {max_in_flight: 3}
"""
LOOK_UP = "async def run(id, label):\n    return {'order': f'{label}-{id}'}\n"
PAY = """\
import os

async def run(id, order, mood, idempotency_key):
    with open(os.environ["SWARM_TEST_WORLD"], "ab", buffering=0) as world:
        world.write(f"{idempotency_key} {id}\\n".encode())
    return {"paid": order}
"""
TASKS, PAID = 6, ("0/sort", "1/mood", "2/sort", "2/mood", "4/sort", "5/mood")  # what the small tier is not sure of
PRICES = dict(zip(PAID, (310, 400, 350, 260, 390, 330), strict=True))  # in micro-dollars; each holds the dearest

# What is done with the store and the hosts, and how often at least before the money is spent.
DOINGS: dict[str, tuple[type, str, int]] = {
    "accept": (LeasedStore, "accept", TASKS),
    "hold": (Holds, "take", 2 * TASKS),
    "sent": (LeasedStore, "sent", 4),
    "ask": (Bus, "ask", 3 * TASKS),
    "journal": (LeasedStore, "settle", 3 * TASKS),
    "finish": (LeasedStore, "finish", TASKS),
}
POINTS = tuple(f"{when}-{doing}" for doing in DOINGS for when in ("before", "after"))

Mark = Callable[[str], None]


def plan_in(folder: Path) -> Plan:
    """The swarm's files in `folder`, and its plan."""
    (folder / "swarm.yaml").write_text(SWARM)
    (folder / "look_up.py").write_text(LOOK_UP)
    (folder / "pay.py").write_text(PAY)
    (folder / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows()))
    return planned(folder / "swarm.yaml")


def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for item in map(str, range(TASKS)):
        for step in ("sort", "mood"):
            price = PRICES.get(f"{item}/{step}")
            said: dict[str, Any] = {"query": item, "step": step, "tokens_in": 20, "output": {"label": "lost"}}
            rows.append({**said, "tier": "small", "confidence": 0.9 if price is None else 0.4})
            if price is not None:
                rows.append({**said, "tier": "strong", "confidence": 0.95, "micro_usd": price})
    return rows


def mark_all(mark: Mark) -> None:
    """Let `mark` know of every passing of a point, from now on in this program."""
    for doing, (kind, method, _) in DOINGS.items():
        setattr(kind, method, _between(mark, doing, getattr(kind, method)))


def _between(mark: Mark, doing: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    async def passed(*args: Any, **more: Any) -> Any:
        mark(f"before-{doing}")
        done = await plain(*args, **more)
        mark(f"after-{doing}")
        return done

    return passed


@contextmanager
def counted(base: Path, chance: Random) -> Iterator[None]:
    """Every ask is written down as it leaves, and every write; answers take as long as chance will have it."""
    log = os.open(base.with_suffix(".asks"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    plain = Bus.ask

    async def ask(bus: Bus, ask: Ask) -> Answer | Failed:
        item = ask.input["id"]
        price = PRICES[f"{item}/{ask.step}"] if ask.tier == "strong" else 0
        os.write(log, f"{item}/{ask.step}/{ask.tier} {price}\n".encode())
        await asyncio.sleep(chance.random() * 0.002)
        reply = await plain(bus, ask)
        await asyncio.sleep(chance.random() * 0.002)
        return reply

    world = {"SWARM_TEST_WORLD": str(base.with_suffix(".world"))}
    with patch.object(Bus, "ask", ask), patch.dict(os.environ, world):
        yield
    os.close(log)


async def opened(plan: Plan, base: Path) -> Session:
    runtime = plan.runtime.model_copy(update={"kind": "in-process", "store": str(base.with_suffix(".db"))})
    return await Session.open(dataclasses.replace(plan, runtime=runtime), InProcessRuntime(), together=True)


async def live(plan: Plan, base: Path, point: str, seed: int) -> None:
    """Until the point is passed for the n-th time."""
    chance = Random(f"{point} {seed}")
    left = chance.randint(1, DOINGS[point.partition("-")[2]][-1])

    def mark(passed: str) -> None:
        nonlocal left
        left -= passed == point
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    with counted(base, chance):
        mark_all(mark)  # over `counted`: an ask has left after "before-ask"
        session = await opened(plan, base)
        items = [{"text": f"item {i}", "item": str(i)} for i in range(TASKS)]
        tasks = [Task(id=new_id("t"), run=session.run, input=item) for item in items]
        await asyncio.gather(*(session.answer(task, None) for task in tasks))
        await session.close()


async def go_on(plan: Plan, base: Path, run: str) -> list[Result]:
    """A second life, which takes up the run and ends it."""
    with counted(base, Random(run)):
        session = await opened(plan, base)
        try:
            return await session.resume(run)
        finally:
            await session.close()


def main(folder: Path, seeds: int) -> None:
    """One process for each, forked before anything of asyncio or SQLite has begun."""
    plan = plan_in(folder)
    for point in POINTS:
        for seed in range(seeds):
            if (child := os.fork()) == 0:
                asyncio.run(live(plan, folder / f"{point}-{seed}", point, seed))
                os._exit(0)
            _, status = os.waitpid(child, 0)
            print(point, seed, os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
