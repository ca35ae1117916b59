"""Records in SQLite: beside the ledger and as durable as it, or in a file of their own that may be lost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import apsw

from swarm.errors import StoreError
from swarm.state.records import SWEEP_S, Record, refuse_known, title
from swarm.state.schema import RECORDS, require_sound
from swarm.state.seals import seal, unsealed
from swarm.state.writer import Writer

T = TypeVar("T")
FEW = 8  # records, which are put at once
_CACHES = 1  # the version of a cache's file

_PUT = """
INSERT INTO records (kind, scope, key, body, digest, at, expires) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (kind, scope, key) DO UPDATE SET
  body = excluded.body, digest = excluded.digest, at = excluded.at, expires = excluded.expires
"""
_GET = """
SELECT kind, scope, key, body, digest, at, expires FROM records
WHERE kind = ? AND scope = ? AND key = ? AND (expires IS NULL OR expires > ?)
"""
_SCAN = """
SELECT kind, scope, key, body, digest, at, expires FROM records
WHERE kind = ? AND scope = ? AND key > ? AND (expires IS NULL OR expires > ?) ORDER BY key LIMIT ?
"""
_FORGET = "DELETE FROM records WHERE kind = ?1 AND (?2 IS NULL OR scope = ?2) AND substr(key, 1, ?3) = ?4"
_SWEEP = "DELETE FROM records WHERE expires <= ?"


Operation = Callable[[apsw.Connection], T]


class Does(Protocol):
    """Runs operations on a connection, each in a transaction, and answers when that is committed (a `Writer` does)."""

    async def do(self, operation: Operation[T]) -> T: ...

    async def quick(self, operation: Operation[T]) -> T:
        """For an operation of microseconds."""
        ...


class SqliteRecords:
    """`now` is the time of day."""

    def __init__(self, file: Does, now: Callable[[], float] = time.time) -> None:
        self._file = file
        self._now = now
        self._next_sweep = 0.0

    async def put(self, records: Sequence[Record], *, new: bool = False) -> None:
        rows = [(*of.name, of.body, seal(of.body), of.at, of.expires) for of in records]

        def write(db: apsw.Connection) -> None:
            now = self._now()
            if new:
                refuse_known(records, lambda name: db.execute(_GET, (*name, now)).fetchone())
            db.executemany(_PUT, rows)
            if now >= self._next_sweep:
                db.execute(_SWEEP, (now,))
                self._next_sweep = now + SWEEP_S

        if rows:
            await (self._file.quick if len(rows) <= FEW else self._file.do)(write)

    async def get(self, kind: str, scope: str, key: str) -> Record | None:
        now = self._now()
        found: list[Any] = await self._file.quick(lambda db: db.execute(_GET, (kind, scope, key, now)).fetchall())
        return _record(found[0]) if found else None

    async def scan(self, kind: str, scope: str, *, after: str = "", limit: int = 1000) -> list[Record]:
        arguments = (kind, scope, after, self._now(), limit)
        found: list[Any] = await self._file.do(lambda db: db.execute(_SCAN, arguments).fetchall())
        return [_record(row) for row in found]

    async def forget(self, kind: str, scope: str | None = None, prefix: str = "") -> int:
        def remove(db: apsw.Connection) -> int:
            db.execute(_FORGET, (kind, scope, len(prefix), prefix))
            return int(db.changes())

        return await self._file.do(remove)


class CacheFile:
    """The writer of a cache's file, which is opened when it is first asked for; a crash may cost what came last."""

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._opening = threading.Lock()  # more than one event loop may be the first
        self._writer: Writer | None = None
        self._closed = False

    async def do(self, operation: Operation[T]) -> T:
        return await self._opened().do(operation)

    async def quick(self, operation: Operation[T]) -> T:
        return await self._opened().quick(operation)

    def _opened(self) -> Writer:
        with self._opening:
            if self._closed:
                raise StoreError("the store was closed")
            if self._writer is None:
                try:
                    self._writer = Writer(self._path, self)
                except StoreError as e:
                    raise StoreError(f"{e}; nothing but caches is kept there, it may be deleted") from e
            return self._writer

    def exists(self) -> bool:
        return self._writer is not None or (self._path != ":memory:" and os.path.exists(self._path))

    async def close(self) -> None:
        with self._opening:
            self._closed = True
        if self._writer is not None:
            await self._writer.close()

    # --- what the writer asks for: nothing is kept in memory

    def prepare(self, db: apsw.Connection) -> None:
        """A file of another version is begun anew: nothing in it is the truth."""
        require_sound()
        db.pragma("synchronous", "normal")
        if db.pragma("user_version") == _CACHES:
            return
        db.execute("BEGIN IMMEDIATE")
        if db.pragma("user_version") != _CACHES:  # another program may have been faster
            db.execute(f"DROP TABLE IF EXISTS records; {RECORDS} PRAGMA user_version = {_CACHES}")
        db.execute("COMMIT")

    def begun(self) -> None: ...

    def flush(self) -> None: ...

    def lost(self) -> None: ...

    def wait_s(self) -> float | None:
        return None


def beside(path: Path | str) -> Path | str:
    """Where the caches of a store are: store.db has them in store.caches.db."""
    return path if path == ":memory:" else Path(path).with_suffix(f".caches{Path(path).suffix}")


def _record(row: tuple[Any, ...]) -> Record:
    kind, scope, key, body, digest, at, expires = row
    return Record(
        kind=kind, scope=scope, key=key, body=unsealed(title((kind, scope, key)), body, digest), at=at, expires=expires
    )
