"""Programs that write to a world outside and kill themselves at a marked point, one for each kind, point and seed.

    python effects_killed.py FOLDER SEEDS

Each leaves FOLDER/<kind>-<point>-<seed>.db, and beside it `.world`: a line for every call of the tool, with its key.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

from protocols.answers import Answer, Ask, Failed
from protocols.money import Limit
from protocols.packs import Pack
from protocols.records import RunRecord
from swarm.config.references import Ref
from swarm.dispatch.effects import Effects
from swarm.dispatch.outbox import Effect, Outbox
from swarm.plan.plan import PlannedStep, Tier
from swarm.state.records import Records
from swarm.state.sqlite import SqliteStore

KINDS = ("once", "idempotent")
POINTS = ("intended", "written", "answered", "noted")
RUN, TASKS = "r-1", 12

Mark = Callable[[str], None]


class Marked(Outbox):
    """An outbox whose program may die before and after it notes what was done."""

    def __init__(self, records: Records, mark: Mark) -> None:
        super().__init__(records, RUN)
        self._mark = mark

    async def put(self, key: str, effect: Effect, *, new: bool = False) -> None:
        if effect.state == "done":
            self._mark("answered")
        await super().put(key, effect, new=new)
        if effect.state == "done":
            self._mark("noted")


async def write(records: Records, world: Path, kind: str, mark: Mark = lambda _: None) -> list[Answer | Failed]:
    """One write of each task, side by side, as a life of a dispatcher asks for it: what came of each."""
    pack = Pack(name="pay", kind="tool", effects="write", idempotent=kind == "idempotent")
    step = PlannedStep("pay", "pay", pack, (Tier("code", "code"),), {"n": Ref("input", ("n",))}, frozenset(), 0.8)
    effects = Effects(Marked(records, mark), "h", RUN)
    log = os.open(world, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def send(ask: Ask) -> Answer:
        mark("intended")
        await asyncio.sleep(0)
        os.write(log, f"{ask.key}\n".encode())
        mark("written")
        return Answer(id=ask.id, output={"n": ask.input["n"]})

    async def one(n: int) -> Answer | Failed:
        ask = Ask(id=f"a-{n}", task=f"t-{n}", step="pay", specialist="pay", tier="code", input={"n": n}, max_tokens=0)
        return await effects.ask(step, ask, send)

    try:
        return await asyncio.gather(*map(one, range(TASKS)))
    finally:
        os.close(log)


async def live(base: Path, kind: str, point: str, seed: int) -> None:
    """Until the point is passed for the n-th time."""
    left = Random(seed).randint(1, TASKS)

    def mark(passed: str) -> None:
        nonlocal left
        left -= passed == point
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    store = await SqliteStore.open(base.with_suffix(".db"))
    await store.begin(RunRecord(id=RUN, swarm="s", plan_hash="h", started=1.0), Limit())
    await write(store.records, base.with_suffix(".world"), kind, mark)


def main(folder: Path, seeds: int) -> None:
    for kind in KINDS:
        for point in POINTS:
            for seed in range(seeds):
                if (child := os.fork()) == 0:
                    asyncio.run(live(folder / f"{kind}-{point}-{seed}", kind, point, seed))
                    os._exit(0)
                _, status = os.waitpid(child, 0)
                print(kind, point, seed, os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
