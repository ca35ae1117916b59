"""Programs that spend under a budget and kill themselves at a marked point, one for each kind, point and seed.

    python ledger_killed.py FOLDER SEEDS [ADDRESS]

Each writes FOLDER/<kind>-<point>-<seed>.db, or that schema of the server at ADDRESS, and FOLDER/<…>.bills, what the
provider has really billed: a line is there as soon as the request has left, and outlives everything.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from random import Random

from ledger_books import opened, sql

from protocols.money import Amount, Limit
from protocols.records import Attempt, RunRecord
from swarm.state.base import Store
from swarm.state.lease import LeasedStore

POINTS = (
    "before hold",
    "after hold",
    "before sent",
    "after sent",
    "leaving",
    "answer",
    "before settle",
    "after settle",
)
KINDS = ("plain", "leased")
LIMIT = Limit(tokens=1500, micro_usd=2000)
TASK = Limit(tokens=400)
SIDE_BY_SIDE = 6


class Spender:
    """`SIDE_BY_SIDE` tasks that hold, send, settle; at the `last` passing of `point` the program is gone."""

    def __init__(self, store: Store, point: str, last: int, bills: Path, chance: Random) -> None:
        self.store = store
        self.point = point
        self.left = last
        self.chance = chance
        self.bills = os.open(bills, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def mark(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    async def task(self, i: int) -> None:
        await self.store.accept("r-1", f"t-{i}", TASK)
        for j in range(40):
            await self.attempt(Attempt(id=f"a-{i}-{j}", task=f"t-{i}", step="s", tier="t", outcome="accepted"))

    async def attempt(self, attempt: Attempt) -> None:
        amount = Amount(tokens=self.chance.randint(1, 30), micro_usd=self.chance.randint(0, 20))
        used = Amount(tokens=self.chance.randint(0, amount.tokens), micro_usd=self.chance.randint(0, amount.micro_usd))
        local = self.chance.random() < 0.3
        self.mark("before hold")
        if await self.store.hold(attempt.id, "r-1", attempt.task, amount, sent=local) is not None:
            return
        self.mark("after hold")
        if not local:
            self.mark("before sent")
            await self.store.sent(attempt.id)
            self.mark("after sent")
        os.write(self.bills, f"{attempt.id} {used.tokens} {used.micro_usd}\n".encode())
        self.mark("leaving")
        await asyncio.sleep(self.chance.random() * 0.002)
        self.mark("answer")
        if self.chance.random() < 0.1:
            return  # its holder is gone: nobody will end it
        self.mark("before settle")
        await self.store.settle(attempt, "r-1", used)
        self.mark("after settle")


def name_of(kind: str, point: str, seed: int) -> str:
    return f"{kind}-{point.replace(' ', '_')}-{seed}"


def place_of(folder: Path, name: str, address: str = "") -> str:
    """Where the store of that name is. `address`: of a server, up to the name of a schema."""
    return f"{address}{name}" if address else str(folder / f"{name}.db")


async def spend(place: str, bills: Path, kind: str, point: str, seed: int) -> None:
    chance = Random(f"{point} {seed}")
    store: Store = await opened(place)
    await store.tenant("acme", Limit(tokens=1400))
    await store.begin(RunRecord(id="r-1", swarm="s", plan_hash="h", started=1.0), LIMIT, "acme")
    if kind == "leased":
        store = LeasedStore(store, "r-1", Amount(tokens=200, micro_usd=200))
    last = chance.randint(1, 8 if "sent" in point else 20)
    spender = Spender(store, point, last, bills, chance)
    await asyncio.gather(*(spender.task(i) for i in range(SIDE_BY_SIDE)))


def main(folder: Path, seeds: int, address: str = "") -> None:
    """One process for each, forked before anything of asyncio or of a store has begun."""
    for kind in KINDS:
        for point in POINTS:
            for seed in range(seeds):
                name = name_of(kind, point, seed)
                if address:
                    sql(f"{address}public", f'CREATE SCHEMA "{name}"')
                child = os.fork()
                if child == 0:
                    place = place_of(folder, name, address)
                    asyncio.run(spend(place, folder / f"{name}.bills", kind, point, seed))
                    os._exit(0)
                _, status = os.waitpid(child, 0)
                print(name, os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
