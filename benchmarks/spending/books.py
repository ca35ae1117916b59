"""One account on one engine, a provider that keeps its own bills, and the verdict on both."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from protocols.money import Amount, Limit
from protocols.records import Attempt, RunRecord
from swarm.state.base import Store
from swarm.state.lease import LeasedStore
from swarm.state.memory import MemoryStore
from swarm.state.slice import slice_of
from swarm.state.sqlite import SqliteStore

Engine = Literal["memory", "sqlite", "leased"]
ENGINES: tuple[Engine, ...] = ("memory", "sqlite", "leased")
RUN = "r-1"


@dataclass
class Provider:
    """Bills every request that arrives, once for each key, as providers with idempotency keys do."""

    bills: dict[str, Amount] = field(default_factory=dict)

    def ask(self, key: str, cost: Amount) -> Amount:
        return self.bills.setdefault(key, cost)

    def total(self) -> Amount:
        return sum(self.bills.values(), Amount())


@dataclass
class Outcome:
    """`overspent`: settled or held beyond the limit; `hidden`: billed by the provider, and not in the books."""

    scenario: str
    engine: str
    asked: int
    granted: int
    overspent: int
    hidden: int
    wall_s: float
    cpu_s: float
    note: str = ""


class Stage:
    """A store with one run and one task for each client; measures from its beginning to its verdict."""

    def __init__(self, engine: str, store: Store, limit: Limit) -> None:
        self.engine = engine
        self.store = store
        self.limit = limit
        self.provider = Provider()
        self.asked = 0
        self.granted = 0
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    async def verdict(self, scenario: str, note: str = "") -> Outcome:
        """Ends the run as a program that is started again would, and compares."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        before = await self.store.balance(f"run:{RUN}")
        await self.store.end(RUN, 2.0)
        await self.store.check()
        balance = await self.store.balance(f"run:{RUN}")
        assert balance.held == Amount(), "a hold outlived its run"
        most = self.limit.micro_usd or 0
        booked = max((before.settled + before.held).micro_usd, balance.settled.micro_usd)
        hidden = (self.provider.total() - balance.settled - balance.overrun).micro_usd
        over = max(0, booked - most)
        return Outcome(scenario, self.engine, self.asked, self.granted, over, max(0, hidden), wall, cpu, note)


@asynccontextmanager
async def stage(engine: Engine, limit: Limit, tasks: int) -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory() as folder:
        store: Store = MemoryStore() if engine == "memory" else await SqliteStore.open(Path(folder) / "store.db")
        await store.begin(RunRecord(id=RUN, swarm="s", plan_hash="h", started=1.0), limit)
        if engine == "leased":
            store = LeasedStore(store, RUN, slice_of(limit))
        for i in range(tasks):
            await store.accept(RUN, f"t-{i}", Limit())
        yield Stage(engine, store, limit)
        await store.close()


def attempt(id: str, task: str) -> Attempt:
    return Attempt(id=id, task=task, step="s", tier="remote", outcome="accepted")
