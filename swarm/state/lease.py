"""A shard's share of a run's account: holds are granted from memory, each attempt's end is journalled with its price.

One durable transaction takes a slice of the run's account; it counts as held there, and as sent. From then on a hold on
a task of this shard costs no transaction, its end costs one, which it shares with all that end meanwhile, and a slice
that runs low is topped up before it is empty. A hold that the slice cannot cover asks the store for what is missing.
What is left goes back at the end.

On every account of the store settled + held ≤ limit holds throughout, as what the shard grants lies within what the
store holds for it. What has ended is durable before anybody is told so. A shard that dies leaves its lease to
`recover`, which charges all of it: never too little, and too much by at most the lease. Where that would be dear,
nothing is leased: a slice without money leaves the holds of money to the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any

from protocols.ids import AttemptId, RunId, TaskId, new_id
from protocols.money import Amount, Limit
from protocols.tasks import Result
from swarm.errors import StoreError
from swarm.state.account import UNITS, Account, limits, minus, split, units
from swarm.state.base import AccountId, Attempt, Draw, Refusal, Store
from swarm.state.memory import MemoryStore
from swarm.state.slice import Slice, slice_of
from swarm.state.through import Through

MANY = 8  # holds of a kind that the slice has nothing of are fetched at once


def leased(store: Store, run: RunId, limit: Limit) -> Store:
    """`store`, for one dispatcher of a run with that limit: its holds of tokens cost no transaction.

    Those of money do, which is nothing beside what is paid for; a crash then charges no money that nobody spent.
    """
    if isinstance(store, MemoryStore):
        return store
    return LeasedStore(store, run, slice_of(Limit(micro_usd=0, tokens=limit.tokens, ms=0)))


class LeasedStore(Through):
    """A `Store` for one run and one dispatcher, on one event loop; `store` is closed with it.

    `slice` is what is taken at once; `slice_of` makes one of a limit. Tasks accepted here are this shard's alone. Holds
    with a key, and those of other tasks, go to the store as they are. The run's balance has the lease among what is
    held.
    """

    def __init__(self, store: Store, run: RunId, slice: Amount) -> None:
        super().__init__(store)
        self._run = run
        self._slice = slice
        self.lease_id = new_id("l")
        self._books = Slice(run)
        self._granted: dict[AttemptId, tuple[AccountId, Amount]] = {}  # from the lease, and not ended
        self._held: dict[AttemptId, Amount] = {}  # at the store, for tasks of ours
        self._keys: set[str] = set()  # those that the store knows from us
        self._draws: dict[AttemptId, Draw] = {}  # ended, and not known to be durable
        self._taking = asyncio.Lock()
        self._topping_up: asyncio.Task[None] | None = None
        self._has_lease = False
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
        if key is not None or (amount.micro_usd and not self._slice.micro_usd):
            at_store = self._store.hold(id, run, task, amount, step=step, key=key, sent=sent, expires_s=expires_s)
            refusal = await self._hold_there(id, leaf, amount, key, at_store)
            if refusal is None or key is not None or not self._has_lease or self._is_below(refusal.account):
                return refusal
            # what is missing there may be what the lease keeps
        if not self._has_lease:
            await self._first()
        refusal = self._books.try_hold(id, leaf, amount, sent, expires_s)
        if refusal is not None and refusal.account == self._books.root.id:
            refusal = await self._beyond(id, leaf, amount, sent, expires_s)
        if refusal is None:
            self._granted[id] = (leaf.id, amount)
            if not self._dry and self._books.low(self._slice):
                self._top_up_soon()
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
        id = attempt.id
        if id in self._granted or id in self._draws:
            ended = self._books.end(id, used, "void" if void else "settled", key, attempt)
            if (granted := self._granted.pop(id, None)) is not None:
                leaf, held = granted if ended else (granted[0], Amount())  # it had expired
                self._draws[id] = Draw(attempt, leaf, held, used if ended else Amount(), void)
            await self._tell(self._draws[id])
        else:  # held there or nowhere, or told before
            call = self._store.void(attempt, run, key=key) if void else self._store.settle(attempt, run, used, key=key)
            await call
            self._end_there(id, used)

    # --- holds that the store grants itself

    async def _hold_there(
        self, id: AttemptId, leaf: Account, amount: Amount, key: str | None,
        at_store: Coroutine[Any, Any, Refusal | None],
    ) -> Refusal | None:  # fmt: skip
        """Counts on the task's account here too; the lease has no part in it."""
        if id in self._held or key in self._keys:  # nothing new can come of it
            return await at_store
        self._books.widen(amount)
        self._held[id] = amount
        try:
            refusal = self._books.hold(id, leaf, amount)
            if refusal is None:
                refusal = await at_store
        except StoreError:
            self._end_there(id, Amount())
            raise
        finally:
            at_store.close()
        if refusal is not None:
            self._end_there(id, Amount())
        elif key is not None:
            self._keys.add(key)
        return refusal

    def _end_there(self, id: AttemptId, used: Amount) -> None:
        held = self._held.pop(id, None)
        if held is not None:
            self._books.end(id, used, "settled")
            money, tokens, ms = minus(units(held), split(units(held), used)[0])
            self._books.widen(Amount(micro_usd=money, tokens=tokens, ms=ms), -1)

    # --- the lease

    async def _first(self) -> None:
        """A lease, with a slice in it if there is one to be had."""
        async with self._taking:
            if not self._has_lease and await self._take(self._slice) is not None:
                await self._take(Amount())

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
            self._has_lease = True
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

    def _top_up_soon(self) -> None:
        if self._topping_up is None or self._topping_up.done():
            self._topping_up = asyncio.create_task(self._top_up())

    async def _top_up(self) -> None:
        with suppress(StoreError):  # `_broken` says it to whoever comes next
            async with self._taking:
                if self._books.low(self._slice):
                    self._dry = await self._take(self._slice) is not None

    # --- the journal

    async def _tell(self, *draws: Draw) -> None:
        """Journal what has ended. What fails is kept and told again, as it was; nothing is granted meanwhile."""
        try:
            await self._store.draw(self.lease_id, self._run, draws)
        except StoreError as e:
            self._broken = str(e)
            raise
        for draw in draws:
            self._draws.pop(draw.attempt.id, None)
        self._dry = False

    async def flush(self) -> None:
        """Journal all that has ended and is not known to be durable. Raises `StoreError`."""
        if self._broken is not None:
            await self._take(Amount())  # to learn whether the store can be used again
        if self._draws:
            await self._tell(*self._draws.values())
        self._broken = None

    async def release(self) -> None:
        """Return what is left of the lease; what was sent and not ended is charged. The next hold takes a new one."""
        if self._topping_up is not None:
            self._topping_up.cancel()
            await asyncio.gather(self._topping_up, return_exceptions=True)
        await self.flush()
        if self._has_lease:
            await self._store.give_back(self.lease_id, self._books.unaccounted())
        self.lease_id, self._books, self._has_lease = new_id("l"), Slice(self._run), False
        self._granted.clear()
        self._held.clear()

    def _ours(self, run: RunId, task: TaskId) -> bool:
        return run == self._run and self._books.has(f"task:{task}")

    def _is_below(self, account: AccountId) -> bool:
        return account != self._books.root.id and self._books.has(account)

    # --- what the store does

    async def accept(
        self, run: RunId, task: TaskId, limit: Limit, steps: Mapping[str, Limit] | None = None, *, body: bytes = b""
    ) -> None:
        await self._store.accept(run, task, limit, steps, body=body)
        if run == self._run:
            self._books.open_task(run, task, limit, steps or {})

    async def finish(self, run: RunId, result: Result) -> None:
        if self._broken is not None:
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
