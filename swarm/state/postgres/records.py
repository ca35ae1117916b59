"""Records in PostgreSQL: those that must last, and those whose last ones a crash of the server may cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from swarm.state.postgres.group import Group
from swarm.state.records import SWEEP_S, Record, RecordExists, refuse_known, title
from swarm.state.seals import seal, unsealed

_COLUMNS = "kind, scope, key, body, digest, at, expires"


class PostgresRecords:
    """`lossy`: a put returns before it is on disk, and is never half there. `now` is the time of day."""

    def __init__(self, group: Group, table: str, now: Callable[[], float] = time.time, *, lossy: bool = False) -> None:
        self._group = group
        self._table = table
        self._now = now
        self._lossy = lossy
        self._next_sweep = 0.0

    async def put(self, records: Sequence[Record], *, new: bool = False) -> None:
        if new:
            refuse_known(records, lambda _: None)
        latest = {record.name: record for record in records}  # in one order for all, so that nobody blocks another
        rows = [(*name, of.body, seal(of.body), of.at, of.expires) for name, of in sorted(latest.items())]

        async def write(db: psycopg.AsyncConnection) -> None:
            if self._lossy:
                await db.execute("SET LOCAL synchronous_commit TO off")
            await self._write(db, rows, new)
            now = self._now()
            if now >= self._next_sweep:
                await db.execute(f"DELETE FROM {self._table} WHERE expires <= %s".encode(), (now,))
                self._next_sweep = now + SWEEP_S

        if rows:
            await self._group.transact(write)

    async def _write(self, db: psycopg.AsyncConnection, rows: list[tuple[Any, ...]], new: bool) -> None:
        query = f"""
        INSERT INTO {self._table} AS old ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (kind, scope, key) DO UPDATE SET
          body = excluded.body, digest = excluded.digest, at = excluded.at, expires = excluded.expires
        """
        if not new:
            async with db.cursor() as to:
                await to.executemany(query.encode(), rows)
            return
        for row in rows:
            put = await db.execute((query + " WHERE old.expires <= %s").encode(), (*row, self._now()))
            if put.rowcount == 0:
                raise RecordExists(f"{title(row[:3])} is there already; nothing was put")

    async def get(self, kind: str, scope: str, key: str) -> Record | None:
        where = "kind = %s AND scope = %s AND key = %s AND (expires IS NULL OR expires > %s)"
        found = await self._read(where, (kind, scope, key, self._now()))
        return found[0] if found else None

    async def scan(self, kind: str, scope: str, *, after: str = "", limit: int = 1000) -> list[Record]:
        where = "kind = %s AND scope = %s AND key > %s AND (expires IS NULL OR expires > %s) ORDER BY key LIMIT %s"
        return await self._read(where, (kind, scope, after, self._now(), limit))

    async def forget(self, kind: str, scope: str | None = None, prefix: str = "") -> int:
        query = f"DELETE FROM {self._table} WHERE kind = %s AND starts_with(key, %s)"
        arguments: tuple[Any, ...] = (kind, prefix)
        if scope is not None:
            query, arguments = f"{query} AND scope = %s", (*arguments, scope)

        async def remove(db: psycopg.AsyncConnection) -> int:
            return (await db.execute(query.encode(), arguments)).rowcount

        return await self._group.transact(remove)

    async def _read(self, where: str, arguments: tuple[Any, ...]) -> list[Record]:
        query = f"SELECT {_COLUMNS} FROM {self._table} WHERE {where}"

        async def read(db: psycopg.AsyncConnection) -> list[tuple[Any, ...]]:
            return await (await db.execute(query.encode(), arguments)).fetchall()

        return [_record(row) for row in await self._group.transact(read)]


def _record(row: tuple[Any, ...]) -> Record:
    kind, scope, key, body, digest, at, expires = row
    return Record(
        kind=kind, scope=scope, key=key, body=unsealed(title((kind, scope, key)), body, digest), at=at, expires=expires
    )
