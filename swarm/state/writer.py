"""One thread that owns one connection, and commits whatever has gathered in one transaction (group commit)."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import apsw

from swarm.errors import StoreError

T = TypeVar("T")
Operation = Callable[[apsw.Connection], Any]
GROUP = 64  # most operations in one transaction
BUSY_S = 10.0  # how long another program's transaction is waited for

_Job = tuple[Operation, asyncio.Future[Any], asyncio.AbstractEventLoop]


class Writer:
    """Runs operations in order. Each is atomic: one that raises leaves nothing behind and harms no other."""

    def __init__(self, path: Path | str, schema: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        try:
            self._connection = _opened(path, schema)
        except (apsw.Error, OSError) as e:
            raise StoreError(f"{path}: the store cannot be opened: {e}") from e
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    async def do(self, operation: Callable[[apsw.Connection], T]) -> T:
        """The operation's result, once it is committed. Raises `StoreError`."""
        if self._closed:
            raise StoreError("the store was closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((operation, future, loop))
        return await asyncio.shield(future)  # a caller who goes away does not undo what is being committed

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while True:
            group = [self._jobs.get()]
            while len(group) < GROUP and group[-1] is not None and not self._jobs.empty():
                group.append(self._jobs.get_nowait())
            jobs = [job for job in group if job is not None]
            if jobs:
                _deliver(self._commit(jobs))
            if len(jobs) < len(group):
                self._connection.close()
                return

    def _commit(self, jobs: list[_Job]) -> list[tuple[_Job, Any, Exception | None]]:
        done: list[tuple[_Job, Any, Exception | None]] = []
        try:
            with _transaction(self._connection):
                for job in jobs:
                    try:
                        with self._connection:  # a savepoint within it
                            done.append((job, job[0](self._connection), None))
                    except Exception as e:
                        if not self._connection.in_transaction:
                            raise  # SQLite has undone the whole group
                        done.append((job, None, _as_store_error(e)))
        except Exception as e:
            return [(job, None, _as_store_error(e)) for job in jobs]
        return done


@contextmanager
def _transaction(connection: apsw.Connection) -> Iterator[None]:
    """Locks at its beginning: a reader that turns writer half-way is refused if another process has written since."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _as_store_error(error: Exception) -> StoreError:
    match error:
        case StoreError():
            return error
        case apsw.ConstraintError():
            return StoreError(f"the ledger refused: {error}")
        case apsw.Error():
            return StoreError(f"the store cannot be written: {error}")
        case _:
            return StoreError(f"the store cannot do this: {type(error).__name__}: {error}")


def _opened(path: Path | str, schema: str) -> apsw.Connection:
    if path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + BUSY_S
    while True:
        try:
            return _prepared(path, schema)
        except apsw.BusyError:  # another program is just making it; SQLite itself does not wait for that
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def _prepared(path: Path | str, schema: str) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    try:
        connection.set_busy_timeout(int(BUSY_S * 1000))
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        connection.pragma("foreign_keys", True)
        with connection:
            connection.execute(schema)
    except BaseException:
        connection.close()
        raise
    return connection


def _deliver(done: list[tuple[_Job, Any, Exception | None]]) -> None:
    """Tell the callers, with one wake-up for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any, Exception | None]]] = {}
    for (_, future, loop), value, error in done:
        by_loop.setdefault(loop, []).append((future, value, error))
    for loop, replies in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, replies)
        except RuntimeError:
            continue  # that loop has ended; what was committed stays committed


def _resolve(replies: list[tuple[asyncio.Future[Any], Any, Exception | None]]) -> None:
    for future, value, error in replies:
        if future.done():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
            future.exception()  # seen: its caller may have gone away
