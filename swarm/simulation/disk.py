"""The store as a program sees it that may die at any moment: slow, sometimes full, and looked at after every change."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from swarm.errors import StoreError
from swarm.state.ledger import Ledger
from swarm.state.memory import MemoryStore

LONGEST_S = 0.02
READS = {"balance", "check", "run", "runs", "tasks", "attempts", "results", "close", "problems"}


class Disk:
    """What outlives a program: one store for all lives, and what was seen to be wrong with it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.store = MemoryStore(clock)
        self.full_until = 0.0
        self.life = 0
        self.wrong: list[str] = []

    def look(self) -> None:
        """The ledger's promise, after every change: settled + held ≤ limit on every account."""
        ledger: Ledger = self.store._ledger
        for account in ledger.accounts():
            for limit, settled, held in zip(account.limit, account.settled, account.held, strict=True):
                if limit is not None and settled + held > limit:
                    self.wrong.append(f"{account.id}: {settled} settled + {held} held > {limit}")
                if held < 0 or settled < 0:
                    self.wrong.append(f"{account.id}: {settled} settled, {held} held")


class Seen:
    """A `Store` of one life of a program. Writes take time before and after they are done; either may be the last."""

    def __init__(self, disk: Disk, rng: random.Random) -> None:
        self._disk = disk
        self._rng = rng
        self._life = disk.life
        self.owner = disk.store.owner
        self.records = disk.store.records
        self.caches = disk.store.caches

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._disk.store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._pause()
            if name == "close":
                return None  # the disk is there for the next life
            if name not in READS and asyncio.get_running_loop().time() < self._disk.full_until:
                raise StoreError("the store cannot be written: no space left on the device")
            result = await method(*args, **kwargs)
            self._disk.look()
            await self._pause()
            return result

        return call

    async def _pause(self) -> None:
        if self._life != self._disk.life:
            raise StoreError("this program is dead")
        await asyncio.sleep(self._rng.uniform(0, LONGEST_S))
        if self._life != self._disk.life:
            raise StoreError("this program is dead")
