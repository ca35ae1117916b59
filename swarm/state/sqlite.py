"""The store in one SQLite file (apsw, WAL, one writer), and its caches in a second one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec

from protocols.ids import AttemptId, RunId, TaskId
from protocols.money import Amount, Limit
from protocols.tasks import Result
from swarm.errors import StoreError
from swarm.state.audit import demand_none
from swarm.state.base import AccountId, Attempt, Balance, Draw, Ended, OwnerId, Refusal, RunRecord, unknown_run
from swarm.state.owners import TTL_S
from swarm.state.records import Records
from swarm.state.rows import SqliteLedger
from swarm.state.seals import seal, unsealed
from swarm.state.sqlite_check import broken_journal, broken_records, damage, looked
from swarm.state.sqlite_records import CacheFile, SqliteRecords, beside
from swarm.state.writer import Writer

_encode = msgspec.msgpack.Encoder().encode
_attempt = msgspec.msgpack.Decoder(Attempt).decode
_result = msgspec.msgpack.Decoder(Result).decode
_KEEP_TASK = "INSERT INTO tasks (id, run, body, digest) VALUES (?, ?, ?, ?)"


class SqliteStore:
    """`path` may be ":memory:". Opening creates what is missing and refuses a store of a newer program.

    A program that dies with holds open is noticed by the others that use the store, `ttl_s` after they saw it last.
    """

    def __init__(
        self, path: Path | str, *, clock: Callable[[], float] = time.monotonic, ttl_s: float = TTL_S,
        now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._books = SqliteLedger(path, clock, ttl_s)
        self._writer = Writer(path, self._books)
        self._cache_file = CacheFile(beside(path))
        self.owner: OwnerId = self._books.owner
        self.records: Records = SqliteRecords(self._writer, now)
        self.caches: Records = SqliteRecords(self._cache_file, now)

    @classmethod
    async def open(cls, path: Path | str) -> SqliteStore:
        return cls(path)

    async def tenant(self, id: str, limit: Limit) -> None:
        await self._writer.do(lambda _: self._books.tenant(id, limit))

    async def begin(self, run: RunRecord, limit: Limit, tenant: str | None = None) -> None:
        row = (run.id, run.swarm, run.plan_hash, run.started, msgspec.json.encode(run.about).decode())

        def write(db: apsw.Connection) -> None:
            self._books.open_run(run.id, limit, tenant)
            db.execute("INSERT INTO runs (id, swarm, plan_hash, started, about) VALUES (?, ?, ?, ?, ?)", row)

        await self._writer.do(write)

    async def end(self, run: RunId, finished: float) -> None:
        def write(db: apsw.Connection) -> None:
            self._books.recover(run=run)
            db.execute("UPDATE runs SET finished = ? WHERE id = ?", (finished, run))

        await self._writer.do(write)

    async def reopen(self, run: RunId) -> None:
        def write(db: apsw.Connection) -> None:
            if not db.execute("SELECT count(*) FROM runs WHERE id = ?", (run,)).get:
                raise unknown_run(run)
            self._books.recover(run=run)
            db.execute("DELETE FROM results WHERE run = ? AND status = 'cancelled'", (run,))
            db.execute("UPDATE runs SET finished = NULL WHERE id = ?", (run,))

        await self._writer.do(write)

    async def accept(
        self, run: RunId, task: TaskId, limit: Limit, steps: Mapping[str, Limit] | None = None, *, body: bytes = b""
    ) -> None:
        def write(db: apsw.Connection) -> None:
            self._books.open_task(run, task, limit, steps or {})
            if body:
                db.execute(_KEEP_TASK, (task, run, body, seal(body)))

        await self._writer.quick(write)

    async def hold(
        self, id: AttemptId, run: RunId, task: TaskId, amount: Amount, *, step: str | None = None,
        key: str | None = None, sent: bool = True, expires_s: float | None = None,
    ) -> Refusal | None:  # fmt: skip
        def write(_: apsw.Connection) -> Refusal | None:
            account = self._books.leaf(run, task, step)
            return self._books.hold(id, account, amount, key=key, sent=sent, expires_s=expires_s)

        return await self._writer.quick(write)

    async def sent(self, id: AttemptId) -> None:
        await self._writer.quick(lambda _: self._books.sent(id))

    async def settle(self, attempt: Attempt, run: RunId, used: Amount, *, key: str | None = None) -> None:
        await self._end(attempt, run, used, "settled", key)

    async def void(self, attempt: Attempt, run: RunId, *, key: str | None = None) -> None:
        await self._end(attempt, run, Amount(), "void", key)

    async def _end(self, attempt: Attempt, run: RunId, used: Amount, state: str, key: str | None) -> None:
        body = _encode(attempt)

        def write(_: apsw.Connection) -> None:
            self._books.end(attempt.id, used, state, key, attempt)
            self._books.keep_attempt(attempt.id, run, body)

        await self._writer.quick(write)

    async def recover(self, *, run: RunId | None = None, owner: OwnerId | None = None) -> Ended:
        return await self._writer.do(lambda _: self._books.recover(run, owner))

    async def lease(self, id: str, run: RunId, amount: Amount) -> Refusal | None:
        return await self._writer.quick(lambda _: self._books.lease(id, run, amount))

    async def draw(self, lease: str, run: RunId, draws: Sequence[Draw]) -> None:
        def write(_: apsw.Connection) -> None:
            for attempt in self._books.draw(lease, run, draws):
                self._books.keep_attempt(attempt.id, run, _encode(attempt))

        await self._writer.quick(write)

    async def give_back(self, lease: str, charged: Amount) -> None:
        await self._writer.do(lambda _: self._books.end(lease, charged, "settled"))

    async def finish(self, run: RunId, result: Result) -> None:
        body = _encode(result)

        def write(_: apsw.Connection) -> None:
            if self._books.has_result(result.task):
                raise StoreError(f"the ledger refused: task {result.task!r} has ended already")
            self._books.keep_result(result.task, run, result.status, body)

        await self._writer.quick(write)

    async def balance(self, account: AccountId) -> Balance:
        return await self._writer.do(lambda _: self._books.account(account).balance())

    async def check(self) -> None:
        demand_none(await self._writer.do(lambda _: self._books.problems()))

    async def problems(self) -> list[str]:
        found = await looked(self._writer, damage, lambda _: self._books.problems(), broken_journal, broken_records)
        if self._cache_file.exists():
            found += await looked(self._cache_file, damage, broken_records)
        return found

    async def run(self, id: RunId) -> RunRecord | None:
        return next((run for run in await self._runs("WHERE id = ?", (id,))), None)

    async def runs(self) -> list[RunRecord]:
        return await self._runs("ORDER BY started", ())

    async def tasks(self, run: RunId) -> list[tuple[TaskId, bytes]]:
        rows = await self._read("SELECT id, body, digest FROM tasks WHERE run = ? ORDER BY place", (run,))
        return [(id, unsealed(f"task {id!r}", body, digest)) for id, body, digest in rows]

    async def attempts(self, run: RunId) -> list[Attempt]:
        rows = await self._read("SELECT id, body, digest FROM attempts WHERE run = ? ORDER BY id", (run,))
        return [_attempt(unsealed(f"attempt {id!r}", body, digest)) for id, body, digest in rows]

    async def results(self, run: RunId) -> list[Result]:
        rows = await self._read("SELECT task, body, digest FROM results WHERE run = ? ORDER BY task", (run,))
        return [_result(unsealed(f"the result of {task!r}", body, digest)) for task, body, digest in rows]

    async def close(self) -> None:
        await self._writer.close(lambda _: self._books.leave())
        await self._cache_file.close()

    async def _runs(self, where: str, arguments: tuple[str, ...]) -> list[RunRecord]:
        query = f"SELECT id, swarm, plan_hash, started, about, finished FROM runs {where}"
        rows = await self._read(query, arguments)
        return [
            RunRecord(id=i, swarm=s, plan_hash=h, started=t, about=msgspec.json.decode(about), finished=end)
            for i, s, h, t, about, end in rows
        ]

    async def _read(self, query: str, arguments: tuple[str, ...]) -> list[Any]:
        def read(db: apsw.Connection) -> list[Any]:
            self._books.flush()  # what was said before in the same group
            return db.execute(query, arguments).fetchall()

        return await self._writer.do(read)
