"""Programs that share one account in one file, some of them killed with holds open."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path
from random import Random

from protocols.money import Amount, Limit
from protocols.records import RunRecord
from spending.books import RUN, Outcome, attempt
from swarm.state.base import Store
from swarm.state.lease import LeasedStore
from swarm.state.sqlite import SqliteStore

PROGRAMS, KILLED = 10, 3
CLIENTS, EACH = 20, 50
HOLD = 100


def programs(engine: str, seed: int) -> Outcome:
    """10 programs × 20 clients × 50 operations on one account for 60% of what they use; three programs are killed."""
    limit = Limit(micro_usd=int(PROGRAMS * CLIENTS * EACH * HOLD * 0.3))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        asyncio.run(_begin(path, limit))
        started = time.perf_counter()
        children = [_forked(path, engine, i, seed, last=i < KILLED) for i in range(PROGRAMS)]
        ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        wall = time.perf_counter() - started
        assert sorted(ends) == [-signal.SIGKILL] * KILLED + [0] * (PROGRAMS - KILLED), ends
        return asyncio.run(_verdict(path, engine, limit, wall))


async def _begin(path: Path, limit: Limit) -> None:
    store = await SqliteStore.open(path)
    await store.begin(RunRecord(id=RUN, swarm="s", plan_hash="h", started=1.0), limit)
    await store.close()


def _forked(path: Path, engine: str, i: int, seed: int, last: bool) -> int:
    child = os.fork()
    if child == 0:
        asyncio.run(_program(path, engine, i, Random(f"{seed} {i}"), dies=last))
        os._exit(0)
    return child


async def _program(path: Path, engine: str, i: int, chance: Random, dies: bool) -> None:
    store: Store = await SqliteStore.open(path)
    if engine == "leased":
        store = LeasedStore(store, RUN, Amount(micro_usd=50 * HOLD))
    bills = os.open(path.with_name(f"{i}.bills"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    left = chance.randint(20, 120) if dies else None

    async def client(c: int) -> None:
        nonlocal left
        await store.accept(RUN, f"t-{i}-{c}", Limit())
        for j in range(EACH):
            id, task = f"a-{i}-{c}-{j}", f"t-{i}-{c}"
            refused = await store.hold(id, RUN, task, Amount(micro_usd=HOLD)) is not None
            used = chance.randint(0, HOLD)
            if not refused:
                os.write(bills, f"{used}\n".encode())
            if left is not None:
                left -= 1
                if left <= 0 or refused:  # refused: the others were faster, and it dies with what it has
                    os.kill(os.getpid(), signal.SIGKILL)
            await asyncio.sleep(0)
            if not refused:
                await store.settle(attempt(id, task), RUN, Amount(micro_usd=used))

    await asyncio.gather(*(client(c) for c in range(CLIENTS)))
    await store.close()


async def _verdict(path: Path, engine: str, limit: Limit, wall: float) -> Outcome:
    bills = [int(line) for file in path.parent.glob("*.bills") for line in file.read_text().split()]
    store = await SqliteStore.open(path)
    before = await store.balance(f"run:{RUN}")
    await store.end(RUN, 2.0)
    await store.check()
    balance = await store.balance(f"run:{RUN}")
    await store.close()
    assert balance.held == Amount()
    booked = max((before.settled + before.held).micro_usd, balance.settled.micro_usd)
    spent, most = balance.settled.micro_usd, limit.micro_usd or 0
    note = f"{100 * (spent - sum(bills)) / most:.1f}% of the budget charged for what the dead may have bought"
    asked, over, hidden = PROGRAMS * CLIENTS * EACH, max(0, booked - most), max(0, sum(bills) - spent)
    return Outcome("10 programs, 3 killed", engine, asked, len(bills), over, hidden, wall, 0.0, note)
