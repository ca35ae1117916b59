"""The store in one PostgreSQL database, which any number of dispatchers on any machines share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import psycopg

from protocols.ids import AttemptId, RunId, TaskId, new_id
from protocols.money import Amount, Limit
from protocols.tasks import Result
from swarm.errors import StoreError
from swarm.state.audit import demand_none
from swarm.state.base import AccountId, Attempt, Balance, Draw, Ended, OwnerId, Refusal, RunRecord, unknown_run
from swarm.state.owners import TTL_S
from swarm.state.postgres.address import Address
from swarm.state.postgres.check import books, broken
from swarm.state.postgres.group import Group, Pool
from swarm.state.postgres.page import Needs, Page
from swarm.state.postgres.records import PostgresRecords
from swarm.state.records import Records
from swarm.state.seals import seal, unsealed

_encode = msgspec.msgpack.Encoder().encode
_attempt = msgspec.msgpack.Decoder(Attempt).decode
_result = msgspec.msgpack.Decoder(Result).decode

_KEEP_RUN = "INSERT INTO runs (id, swarm, plan_hash, started, about) VALUES (%s, %s, %s, %s, %s)"
_KEEP_TASK = "INSERT INTO tasks (id, run, body, digest) VALUES (%s, %s, %s, %s)"
_KEEP_RESULT = "INSERT INTO results (task, run, status, body, digest) VALUES (%s, %s, %s, %s, %s)"


class PostgresStore:
    """For one event loop. `open` creates what is missing and refuses a store of a newer program.

    A program that dies with holds open is noticed by the others that use the store, `ttl_s` after they saw it last.
    """

    def __init__(
        self, pool: Pool, address: Address, *, clock: Callable[[], float] = time.monotonic, ttl_s: float = TTL_S,
        now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.owner: OwnerId = new_id("o")
        self._group = Group(pool, address, self.owner, clock, ttl_s)
        self.records: Records = PostgresRecords(self._group, "records", now)
        self.caches: Records = PostgresRecords(self._group, "caches", now, lossy=True)

    @classmethod
    async def open(cls, url: str, **more: Any) -> PostgresStore:
        """`url`: postgresql://USER:PASSWORD@HOST:PORT/DATABASE. `more`: what the class itself takes."""
        address = Address(url)
        return cls(await address.connect(), address, **more)

    async def tenant(self, id: str, limit: Limit) -> None:
        await self._group.do(Needs(accounts=(f"tenant:{id}",)), lambda page: page.tenant(id, limit))

    async def begin(self, run: RunRecord, limit: Limit, tenant: str | None = None) -> None:
        row = (run.id, run.swarm, run.plan_hash, run.started, msgspec.json.encode(run.about).decode())

        def write(page: Page) -> None:
            page.open_run(run.id, limit, tenant)
            page.put(_KEEP_RUN, *row)

        above = () if tenant is None else (f"tenant:{tenant}",)
        await self._group.do(Needs(accounts=(f"run:{run.id}", *above)), write)

    async def end(self, run: RunId, finished: float) -> None:
        def write(page: Page) -> None:
            page.recover(run=run)
            page.put("UPDATE runs SET finished = %s WHERE id = %s", finished, run)

        await self._group.do(Needs(runs=(run,)), write)

    async def reopen(self, run: RunId) -> None:
        def write(page: Page) -> None:
            if run not in page.runs:
                raise unknown_run(run)
            page.recover(run=run)
            page.put("DELETE FROM results WHERE run = %s AND status = 'cancelled'", run)
            page.put("UPDATE runs SET finished = NULL WHERE id = %s", run)

        await self._group.do(Needs(runs=(run,)), write)

    async def accept(
        self, run: RunId, task: TaskId, limit: Limit, steps: Mapping[str, Limit] | None = None, *, body: bytes = b""
    ) -> None:
        def write(page: Page) -> None:
            page.open_task(run, task, limit, steps or {})
            if body:
                page.put(_KEEP_TASK, task, run, body, seal(body))

        new = (f"task:{task}", *(f"step:{task}/{step}" for step in steps or {}))
        await self._group.do(Needs(accounts=(f"run:{run}", *new)), write)

    async def hold(
        self, id: AttemptId, run: RunId, task: TaskId, amount: Amount, *, step: str | None = None,
        key: str | None = None, sent: bool = True, expires_s: float | None = None,
    ) -> Refusal | None:  # fmt: skip
        def write(page: Page) -> Refusal | None:
            account = page.leaf(run, task, step)
            return page.hold(id, account, amount, key=key, sent=sent, expires_s=expires_s)

        leaf = f"task:{task}" if step is None else f"step:{task}/{step}"
        return await self._group.do(Needs(accounts=(leaf,), holds=(id,), keys=_keys("hold", key)), write)

    async def sent(self, id: AttemptId) -> None:
        await self._group.do(Needs(holds=(id,)), lambda page: page.sent(id))

    async def settle(self, attempt: Attempt, run: RunId, used: Amount, *, key: str | None = None) -> None:
        await self._end(attempt, run, used, "settled", key)

    async def void(self, attempt: Attempt, run: RunId, *, key: str | None = None) -> None:
        await self._end(attempt, run, Amount(), "void", key)

    async def _end(self, attempt: Attempt, run: RunId, used: Amount, state: str, key: str | None) -> None:
        body = _encode(attempt)

        def write(page: Page) -> None:
            page.end(attempt.id, used, state, key, attempt)
            page.keep_attempt(attempt.id, run, body)

        await self._group.do(Needs(holds=(attempt.id,), keys=_keys("end", key)), write)

    async def recover(self, *, run: RunId | None = None, owner: OwnerId | None = None) -> Ended:
        needs = Needs(runs=() if run is None else (run,), owners=() if owner is None else (owner,))
        return await self._group.do(needs, lambda page: page.recover(run, owner))

    async def lease(self, id: str, run: RunId, amount: Amount) -> Refusal | None:
        needs = Needs(accounts=(f"run:{run}",), holds=(id,))
        return await self._group.do(needs, lambda page: page.lease(id, run, amount))

    async def draw(self, lease: str, run: RunId, draws: Sequence[Draw]) -> None:
        def write(page: Page) -> None:
            for attempt in page.draw(lease, run, draws):
                page.keep_attempt(attempt.id, run, _encode(attempt))

        accounts = {f"run:{run}", *(draw.account for draw in draws)}
        holds = {lease, *(draw.attempt.id for draw in draws)}
        await self._group.do(Needs(accounts=tuple(accounts), holds=tuple(holds)), write)

    async def give_back(self, lease: str, charged: Amount) -> None:
        await self._group.do(Needs(holds=(lease,)), lambda page: page.end(lease, charged, "settled"))

    async def finish(self, run: RunId, result: Result) -> None:
        body = _encode(result)

        def write(page: Page) -> None:
            if result.task in page.ended:
                raise StoreError(f"the ledger refused: task {result.task!r} has ended already")
            page.ended.add(result.task)
            page.put(_KEEP_RESULT, result.task, run, result.status, body, seal(body))

        await self._group.do(Needs(tasks=(result.task,)), write)

    async def balance(self, account: AccountId) -> Balance:
        return await self._group.do(Needs(accounts=(account,)), lambda page: page.account(account).balance())

    async def check(self) -> None:
        demand_none(await self._group.transact(books))

    async def problems(self) -> list[str]:
        return [*await self._group.transact(books), *await self._group.transact(broken)]

    async def run(self, id: RunId) -> RunRecord | None:
        return next((run for run in await self._runs("WHERE id = %s", (id,))), None)

    async def runs(self) -> list[RunRecord]:
        return await self._runs("ORDER BY started", ())

    async def tasks(self, run: RunId) -> list[tuple[TaskId, bytes]]:
        rows = await self._read("SELECT id, body, digest FROM tasks WHERE run = %s ORDER BY place", (run,))
        return [(id, unsealed(f"task {id!r}", body, digest)) for id, body, digest in rows]

    async def attempts(self, run: RunId) -> list[Attempt]:
        rows = await self._read("SELECT id, body, digest FROM attempts WHERE run = %s ORDER BY id", (run,))
        return [_attempt(unsealed(f"attempt {id!r}", body, digest)) for id, body, digest in rows]

    async def results(self, run: RunId) -> list[Result]:
        rows = await self._read("SELECT task, body, digest FROM results WHERE run = %s ORDER BY task", (run,))
        return [_result(unsealed(f"the result of {task!r}", body, digest)) for task, body, digest in rows]

    async def close(self) -> None:
        await self._group.close()

    async def _runs(self, where: str, arguments: tuple[str, ...]) -> list[RunRecord]:
        query = f"SELECT id, swarm, plan_hash, started, about, finished FROM runs {where}"
        return [
            RunRecord(id=i, swarm=s, plan_hash=h, started=t, about=msgspec.json.decode(about), finished=end)
            for i, s, h, t, about, end in await self._read(query, arguments)
        ]

    async def _read(self, query: str, arguments: tuple[str, ...]) -> list[tuple[Any, ...]]:
        async def read(db: psycopg.AsyncConnection) -> list[tuple[Any, ...]]:
            return await (await db.execute(query.encode(), arguments)).fetchall()

        return await self._group.transact(read)


def _keys(verb: str, key: str | None) -> tuple[tuple[str, str], ...]:
    return () if key is None else ((verb, key),)
