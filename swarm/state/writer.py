"""One thread that owns one connection, and commits whatever has gathered in one transaction (group commit)."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import apsw

from swarm.errors import StoreError

T = TypeVar("T")
Operation = Callable[[apsw.Connection], Any]
GROUP = 256  # most operations in one transaction
BUSY_S = 10.0  # how long another program's transaction is waited for

_Job = tuple[Operation, asyncio.Future[Any], asyncio.AbstractEventLoop]
_Done = tuple[_Job, Any, Exception | None]


class Keeper(Protocol):
    """Keeps in memory what operations read and change, and writes the changes once for each group."""

    def prepare(self, db: apsw.Connection) -> None:
        """Once, before anything else, outside a transaction."""
        ...

    def begun(self) -> None:
        """A transaction has begun: is what is in memory still true?"""
        ...

    def flush(self) -> None:
        """Write what has changed; the commit follows."""
        ...

    def lost(self) -> None:
        """The transaction was undone: what is in memory is no longer true."""
        ...

    def wait_s(self) -> float | None:
        """When something is due though nobody asks; a group without operations is committed then."""
        ...


class Writer:
    """Runs operations in order. Each is atomic: one that raises leaves nothing behind and harms no other."""

    def __init__(self, path: Path | str, keeper: Keeper) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._keeper = keeper
        try:
            self._connection = _opened(path, keeper)
        except (apsw.Error, OSError) as e:
            raise StoreError(f"{path}: the store cannot be opened: {e}") from e
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    async def do(self, operation: Callable[[apsw.Connection], T]) -> T:
        """The operation's result, once it is committed. Raises `StoreError`.

        A caller who goes away does not undo what is being committed: only his future is cancelled.
        """
        if self._closed:
            raise StoreError("the store was closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((operation, future, loop))
        return await future

    async def close(self, last: Operation = lambda _: None) -> None:
        """Do what was asked for before, then `last`, and end; a `last` that fails is nobody's loss."""
        if not self._closed:
            self._closed = True
            loop = asyncio.get_running_loop()
            self._jobs.put((last, loop.create_future(), loop))
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while True:
            group = self._gather()
            jobs = [job for job in group if job is not None]
            _deliver(self._commit(jobs))
            if len(jobs) < len(group):
                self._connection.close()
                return

    def _gather(self) -> list[_Job | None]:
        try:
            group = [self._jobs.get(timeout=self._keeper.wait_s())]
        except queue.Empty:
            return []
        while len(group) < GROUP and group[-1] is not None and not self._jobs.empty():
            group.append(self._jobs.get_nowait())
        return group

    def _commit(self, jobs: list[_Job]) -> list[_Done]:
        try:
            with self._transaction():
                done = [self._answer(job) for job in jobs]
                self._keeper.flush()
            return done
        except Exception as e:
            if len(jobs) > 1 and _is_of_one(e):
                return [done for job in jobs for done in self._commit([job])]
            return [(job, None, _as_store_error(e)) for job in jobs]

    def _answer(self, job: _Job) -> _Done:
        before = self._connection.total_changes()
        try:
            answer = job[0](self._connection)
            if not self._connection.in_transaction:
                raise apsw.SQLError("the database has undone the whole group")
            return job, answer, None
        except StoreError as e:  # a refusal is an answer, as long as nothing was written by then
            if self._connection.total_changes() != before:
                raise
            return job, None, e

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Locks at its beginning: a reader that turns writer half-way is refused if another process has written."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._keeper.begun()
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._keeper.lost()
            raise
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _is_of_one(error: Exception) -> bool:
    """Whether one operation is at fault and not the disk, so that the others can still be done, one by one."""
    return isinstance(error, apsw.ConstraintError | apsw.SQLError) or not isinstance(error, apsw.Error)


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


def _opened(path: Path | str, keeper: Keeper) -> apsw.Connection:
    if path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + BUSY_S
    while True:
        try:
            return _prepared(path, keeper)
        except apsw.BusyError:  # another program is just making it; SQLite itself does not wait for that
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def _prepared(path: Path | str, keeper: Keeper) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    try:
        connection.set_busy_timeout(int(BUSY_S * 1000))
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        connection.pragma("foreign_keys", True)
        keeper.prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _deliver(done: list[_Done]) -> None:
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
