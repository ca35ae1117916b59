"""The ways in which budgets were overrun elsewhere, each played against the ledger."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from protocols.money import Amount, Limit
from spending.books import RUN, Engine, Outcome, Stage, attempt, stage
from swarm.errors import StoreError
from swarm.state.base import Store

CLIENTS, EACH = 200, 50
HOLD = 100  # micro-dollars
FAN_OUT, AFFORDABLE = 792, 100


async def crowd(engine: Engine, seed: int) -> Outcome:
    """200 clients × 50 operations on an account for 60% of what they use.

    Each is sent once to three times at once with one key; one client in ten goes away with a hold open.
    """
    async with stage(engine, Limit(micro_usd=int(CLIENTS * EACH * HOLD * 0.3)), CLIENTS) as s:
        chance = Random(seed)
        dying = set(chance.sample(range(CLIENTS), CLIENTS // 10))
        await asyncio.gather(*(_client(s, i, Random(f"{seed} {i}"), i in dying, keyed=True) for i in range(CLIENTS)))
        return await s.verdict("crowd, duplicates, deaths")


async def crowd_without_keys(engine: Engine, seed: int) -> Outcome:
    """The same without duplicates: what the ledger does in a second, from memory where a shard leases."""
    async with stage(engine, Limit(micro_usd=int(CLIENTS * EACH * HOLD * 0.3)), CLIENTS) as s:
        dying = set(Random(seed).sample(range(CLIENTS), CLIENTS // 10))
        await asyncio.gather(*(_client(s, i, Random(f"{seed} {i}"), i in dying, keyed=False) for i in range(CLIENTS)))
        return await s.verdict("crowd, deaths")


async def _client(s: Stage, i: int, chance: Random, dies: bool, keyed: bool) -> None:
    last = chance.randrange(EACH) if dies else EACH
    for j in range(EACH):
        s.asked += 1
        id, task = f"a-{i}-{j}", f"t-{i}"
        cost = Amount(micro_usd=chance.randint(0, HOLD))
        copies = chance.choice((1, 2, 3)) if keyed else 1
        sending = asyncio.gather(*(_once(s, id, task, cost, id if keyed else None, j != last) for _ in range(copies)))
        if any(await sending):
            s.granted += 1
        if j == last:
            return


async def _once(s: Stage, id: str, task: str, cost: Amount, key: str | None, ends: bool) -> bool:
    """One delivery of an operation; its duplicates do the same beside it."""
    if await s.store.hold(id, RUN, task, Amount(micro_usd=HOLD), key=key) is not None:
        return False
    used = s.provider.ask(id, cost)
    await asyncio.sleep(0)
    if ends:
        await s.store.settle(attempt(id, task), RUN, used, key=key)
    return True


async def fan_out(engine: Engine, seed: int) -> Outcome:
    """792 calls in one turn against a budget for 100."""
    async with stage(engine, Limit(micro_usd=AFFORDABLE * HOLD), 1) as s:
        s.asked = FAN_OUT
        calls = (_once(s, f"a-{i}", "t-0", Amount(micro_usd=HOLD), None, True) for i in range(FAN_OUT))
        s.granted = sum(await asyncio.gather(*calls))
        assert s.granted == AFFORDABLE, s.granted
        return await s.verdict(f"fan-out of {FAN_OUT}, budget for {AFFORDABLE}")


class Outage:
    """A store that is away for a while: calls fail, some of them only after they have been carried out."""

    def __init__(self, store: Store, chance: Random) -> None:
        self._store = store
        self._chance = chance
        self.away = False

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)

        async def call(*given: Any, **named: Any) -> Any:
            if self.away and self._chance.random() < 0.5:
                await real(*given, **named)
            if self.away:
                raise StoreError("the store is away")
            return await real(*given, **named)

        return call


async def outage(engine: Engine, seed: int) -> Outcome:
    """The store goes away in the middle: nothing is sent meanwhile; what was on its way is charged."""
    async with stage(engine, Limit(micro_usd=CLIENTS * EACH * HOLD), CLIENTS) as s:
        real, store = s.store, Outage(s.store, Random(seed))
        s.store = store
        clients = [asyncio.create_task(_through(s, i, Random(f"{seed} {i}"))) for i in range(CLIENTS)]
        while len(s.provider.bills) < CLIENTS * EACH // 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
        store.away, before = True, len(s.provider.bills)
        await asyncio.sleep(0.2)
        sent_meanwhile = len(s.provider.bills) - before
        store.away = False
        await asyncio.gather(*clients)
        s.store = real
        assert sent_meanwhile <= CLIENTS, "only what had its hold before"
        return await s.verdict("store away for 0.2 s", f"{sent_meanwhile} sent meanwhile, held before")


async def _through(s: Stage, i: int, chance: Random) -> None:
    """Asks again under the same key when it does not know whether it has a hold."""
    for j in range(EACH):
        id, task = f"a-{i}-{j}", f"t-{i}"
        s.asked += 1
        cost = Amount(micro_usd=chance.randint(0, HOLD))
        if await _insist(lambda: s.store.hold(id, RUN, task, Amount(micro_usd=HOLD), key=id)) is not None:  # noqa: B023
            continue
        s.granted += 1
        used = s.provider.ask(id, cost)
        await _insist(lambda: s.store.settle(attempt(id, task), RUN, used, key=id))  # noqa: B023


async def _insist(call: Any) -> Any:
    while True:
        try:
            return await call()
        except StoreError:
            await asyncio.sleep(0.005)


async def misreported(engine: Engine, seed: int) -> Outcome:
    """A provider that reports less than nothing, ten times too much, far too much, or nothing at all."""
    async with stage(engine, Limit(micro_usd=CLIENTS * HOLD), 1) as s:
        says = (-50, 10 * HOLD, 10**30, None)
        for i in range(CLIENTS):
            s.asked += 1
            if await s.store.hold(f"a-{i}", RUN, "t-0", Amount(micro_usd=HOLD)) is None:
                s.granted += 1
                reported = says[i % len(says)]
                used = Amount(micro_usd=HOLD if reported is None else reported)
                await s.store.settle(attempt(f"a-{i}", "t-0"), RUN, used)
        balance = await s.store.balance(f"run:{RUN}")
        assert balance.settled.micro_usd == CLIENTS * HOLD * 3 // 4, "negative is nothing, everything else the hold"
        return await s.verdict("usage wrong, negative or missing", "the excess is recorded as overrun")
