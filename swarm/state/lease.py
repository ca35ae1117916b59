"""A shard's share of a run's account: holds are granted from memory, and journalled in the background in groups.

One durable transaction takes a slice of the run's account; it counts as held there. From then on a hold on a task of
this shard costs no transaction, its end is told to the store with those of others, and a slice that runs low is topped
up before it is empty. A hold that the slice cannot cover asks the store for what is missing. What is left goes back at
the end.

On every account of the store settled + held ≤ limit holds throughout, as what the shard grants lies within what the
store holds for it. A shard that dies leaves its lease to `recover`, which charges all of it: never too little, and too
much by at most the lease. Its tasks must not be gone on with elsewhere: their accounts may lack what it did last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from protocols.ids import AttemptId, RunId, TaskId, new_id
from protocols.money import Amount, Limit
from protocols.tasks import Result
from swarm.errors import StoreError
from swarm.state.account import UNITS, Account, limits, minus, split, units
from swarm.state.base import AccountId, Attempt, Balance, Draw, Ended, OwnerId, Refusal, RunRecord, Store
from swarm.state.slice import Slice

MANY = 8  # holds of a kind that the slice has nothing of are fetched at once
FLUSH_S = 0.02  # how long ended attempts gather before they are journalled


class LeasedStore:
    """A `Store` for one run and one dispatcher, on one event loop; `store` is closed with it.

    `slice` is what is taken at once; `slice_of` makes one of a limit. Tasks accepted here are this shard's alone. Holds
    with a key, and those of other tasks, go to the store as they are.
    """

    def __init__(self, store: Store, run: RunId, slice: Amount, flush_s: float = FLUSH_S) -> None:
        self._store = store
        self._run = run
        self._slice = slice
        self._flush_s = flush_s
        self.lease_id = new_id("l")
        self._books = Slice(run)
        self._granted: dict[AttemptId, tuple[AccountId, Amount]] = {}  # from the lease, and not ended
        self._keyed: dict[AttemptId, Amount] = {}  # held at the store, for tasks of ours
        self._keys: set[str] = set()  # those that the store knows from us
        self._draws: list[Draw] = []
        self._writing = asyncio.Lock()
        self._taking = asyncio.Lock()
        self._background: dict[str, asyncio.Task[None]] = {}
        self._dry = False  # the last top-up was refused, and nothing was journalled since
        self._broken: str | None = None

    # --- holds

    async def hold(
        self, id: AttemptId, run: RunId, task: TaskId, amount: Amount, *, step: str | None = None,
        key: str | None = None, sent: bool = True, expires_s: float | None = None,
    ) -> Refusal | None:  # fmt: skip
        if self._broken is not None:
            await self.flush()  # raises as long as the store cannot be used: nothing is granted meanwhile
        if not self._ours(run, task):
            return await self._store.hold(id, run, task, amount, step=step, key=key, sent=sent, expires_s=expires_s)
        leaf = self._books.leaf(run, task, step)
        if key is not None:
            at_store = self._store.hold(id, run, task, amount, step=step, key=key, sent=sent, expires_s=expires_s)
            return await self._hold_keyed(id, leaf, amount, key, at_store)
        refusal = self._books.try_hold(id, leaf, amount, sent, expires_s)
        if refusal is not None and refusal.account == self._books.root.id:
            refusal = await self._beyond(id, leaf, amount, sent, expires_s)
        if refusal is None:
            self._granted[id] = (leaf.id, amount)
            if not self._dry and self._books.low(self._slice):
                self._soon("top up", self._top_up)
        return refusal

    async def sent(self, id: AttemptId) -> None:
        if id not in self._granted:
            return await self._store.sent(id)
        self._books.expire()
        self._books.sent(id)

    async def settle(self, attempt: Attempt, run: RunId, used: Amount, *, key: str | None = None) -> None:
        await self._end(attempt, run, used, key, void=False)

    async def void(self, attempt: Attempt, run: RunId, *, key: str | None = None) -> None:
        await self._end(attempt, run, Amount(), key, void=True)

    async def _end(self, attempt: Attempt, run: RunId, used: Amount, key: str | None, *, void: bool) -> None:
        state = "void" if void else "settled"
        if attempt.id not in self._granted and (attempt.id in self._keyed or not self._ours(run, attempt.task)):
            call = self._store.void(attempt, run, key=key) if void else self._store.settle(attempt, run, used, key=key)
            await call
            self._end_keyed(attempt.id, used)
            return
        ended = self._books.end(attempt.id, used, state, key, attempt)
        leaf, held = self._granted.pop(attempt.id, (f"task:{attempt.task}", Amount()))
        if not ended:  # never held, expired, or told before
            held, used = Amount(), Amount()
        self._draws.append(Draw(attempt, leaf, held, used, void))
        self._soon("flush", self._flush_soon)

    # --- holds that the store grants itself

    async def _hold_keyed(
        self, id: AttemptId, leaf: Account, amount: Amount, key: str, at_store: Coroutine[Any, Any, Refusal | None]
    ) -> Refusal | None:
        """Counts on the task's account here too; the lease has no part in it."""
        if id in self._keyed or key in self._keys:  # nothing new can come of it
            return await at_store
        self._books.widen(amount)
        self._keyed[id] = amount
        try:
            refusal = self._books.hold(id, leaf, amount)
            if refusal is None:
                refusal = await at_store
        except StoreError:
            self._end_keyed(id, Amount())
            raise
        finally:
            at_store.close()
        if refusal is None:
            self._keys.add(key)
        else:
            self._end_keyed(id, Amount())
        return refusal

    def _end_keyed(self, id: AttemptId, used: Amount) -> None:
        held = self._keyed.pop(id, None)
        if held is not None:
            self._books.end(id, used, "settled")
            money, tokens, ms = minus(units(held), split(units(held), used)[0])
            self._books.widen(Amount(micro_usd=money, tokens=tokens, ms=ms), -1)

    # --- the lease

    async def _beyond(
        self, id: AttemptId, leaf: Account, amount: Amount, sent: bool, expires_s: float | None
    ) -> Refusal | None:
        async with self._taking:
            while True:
                refusal = self._books.try_hold(id, leaf, amount, sent, expires_s)  # somebody may have topped up
                if refusal is None or refusal.account != self._books.root.id:
                    return refusal
                refused = await self._take(self._books.missing(amount, self._slice, MANY))
                if refused is not None:
                    refused = await self._take(self._books.missing(amount))
                if refused is not None:
                    return await self._told(refused, amount)

    async def _take(self, amount: Amount) -> Refusal | None:
        """Whole, though the caller may go away: what the store has given is here then."""
        return await asyncio.shield(asyncio.ensure_future(self._taken(amount)))

    async def _taken(self, amount: Amount) -> Refusal | None:
        try:
            refusal = await self._store.lease(self.lease_id, self._run, amount)
        except StoreError as e:
            self._broken = str(e)
            raise
        if refusal is None:
            self._books.widen(amount)
        return refusal

    async def _told(self, refused: Refusal, amount: Amount) -> Refusal:
        """The refusal of a part as one of the whole."""
        await self.flush()
        balance = await self._store.balance(refused.account)
        unit = UNITS.index(refused.unit)
        most, wanted = limits(balance.limit)[unit], units(amount)[unit]
        assert most is not None
        left = most - units(balance.settled + balance.held)[unit] + self._books.free()[unit]
        return Refusal(refused.account, refused.unit, wanted, left, units(balance.settled)[unit] + wanted <= most)

    async def _top_up(self) -> None:
        async with self._taking:
            if self._books.low(self._slice):
                self._dry = await self._take(self._slice) is not None

    # --- the journal

    async def flush(self) -> None:
        """Journal what has ended. Raises `StoreError`; it is kept and tried again then, and nothing is granted."""
        async with self._writing:
            try:
                if self._books.root.limit == (0, 0, 0) and (self._draws or self._broken):
                    await self._store.lease(
                        self.lease_id, self._run, Amount()
                    )  # something to draw from, or to probe with
                while self._draws or self._broken:
                    batch = list(self._draws)
                    await self._store.draw(self.lease_id, self._run, batch)
                    del self._draws[: len(batch)]
                    self._broken, self._dry = None, False
            except StoreError as e:
                self._broken = str(e)
                raise

    async def _flush_soon(self) -> None:
        await asyncio.sleep(self._flush_s)
        await self.flush()

    def _soon(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        running = self._background.get(name)
        if running is None or running.done():
            self._background[name] = asyncio.create_task(self._quietly(work))

    async def _quietly(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with suppress(StoreError):  # `_broken` says it to whoever comes next
            await work()

    async def release(self) -> None:
        """Return what is left of the lease; what was sent and not ended is charged. The next hold takes a new one."""
        for task in self._background.values():
            task.cancel()
        await asyncio.gather(*self._background.values(), return_exceptions=True)
        await self.flush()
        await self._store.give_back(self.lease_id, self._books.unaccounted())
        self.lease_id, self._books = new_id("l"), Slice(self._run)
        self._granted.clear()

    def _ours(self, run: RunId, task: TaskId) -> bool:
        return run == self._run and self._books.has(f"task:{task}")

    # --- what the store does

    async def tenant(self, id: str, limit: Limit) -> None:
        await self._store.tenant(id, limit)

    async def begin(self, run: RunRecord, limit: Limit, tenant: str | None = None) -> None:
        await self._store.begin(run, limit, tenant)

    async def accept(self, run: RunId, task: TaskId, limit: Limit, steps: Mapping[str, Limit] | None = None) -> None:
        await self._store.accept(run, task, limit, steps)
        if run == self._run:
            self._books.open_task(run, task, limit, steps or {})

    async def finish(self, run: RunId, result: Result) -> None:
        await self.flush()
        await self._store.finish(run, result)
        self._books.forget(result.task)

    async def end(self, run: RunId, finished: float) -> None:
        if run == self._run:
            await self.release()
        await self._store.end(run, finished)

    async def close(self) -> None:
        with suppress(StoreError):  # what could not be told stays leased, and `recover` charges it
            await self.release()
        await self._store.close()

    async def recover(self, *, run: RunId | None = None, owner: OwnerId | None = None) -> Ended:
        return await self._store.recover(run=run, owner=owner)

    async def lease(self, id: str, run: RunId, amount: Amount) -> Refusal | None:
        return await self._store.lease(id, run, amount)

    async def draw(self, lease: str, run: RunId, draws: Sequence[Draw]) -> None:
        await self._store.draw(lease, run, draws)

    async def give_back(self, lease: str, charged: Amount) -> None:
        await self._store.give_back(lease, charged)

    async def balance(self, account: AccountId) -> Balance:
        """The run's has the lease among what is held."""
        await self.flush()
        return await self._store.balance(account)

    async def check(self) -> None:
        await self.flush()
        await self._store.check()

    async def run(self, id: RunId) -> RunRecord | None:
        return await self._store.run(id)

    async def runs(self) -> list[RunRecord]:
        return await self._store.runs()

    async def attempts(self, run: RunId) -> list[Attempt]:
        await self.flush()
        return await self._store.attempts(run)

    async def results(self, run: RunId) -> list[Result]:
        return await self._store.results(run)
