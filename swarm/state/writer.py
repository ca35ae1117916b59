"""One connection, and one thread that commits whatever has gathered in one transaction (group commit).

To hand work to a thread and to wake its caller again costs as much CPU as a commit. Short operations are therefore
committed on the event loop that asks for them, all of one turn together, as long as the disk is quick and nobody else
writes; else the thread does it. A disk that turns slow holds the loop up once.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import apsw

from swarm.errors import StoreError
from swarm.state.turns import Turns
from swarm.state.wal import Log, opened, patient

T = TypeVar("T")
Operation = Callable[[apsw.Connection], Any]
GROUP = 256  # most operations in one transaction
FEW = 16  # operations, which take hardly longer to commit than one
HERE_S = 0.001  # a disk that needs longer for a few is left to the thread
FADING = 0.9  # what a slow commit still counts for after each one that follows

_Job = tuple[Operation, asyncio.Future[Any], asyncio.AbstractEventLoop]
_Done = tuple[_Job, Any, Exception | None]
_Word = Literal["look", "end"]  # to the thread: at what is due, or to end


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
        self._jobs: queue.SimpleQueue[_Job | _Word] = queue.SimpleQueue()
        self._closed = False
        self._keeper = keeper
        try:
            self._connection = opened(path, keeper.prepare)
        except (apsw.Error, OSError) as e:
            raise StoreError(f"{path}: the store cannot be opened: {e}") from e
        self._log = Log(self._connection)
        self._turns: Turns[_Job] = Turns(self._do_turn)
        self._using = threading.Lock()  # connection and keeper
        self._counting = threading.Lock()
        self._waiting = 0  # operations that the thread has been given and has not done
        self._looks_at = math.inf  # when the thread wakes by itself
        self._commit_s = 2 * HERE_S  # of the slowest commit of late; one that is not known is slow
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    async def do(self, operation: Callable[[apsw.Connection], T]) -> T:
        """The operation's result, once it is committed. Raises `StoreError`.

        A caller who goes away does not undo what is being committed: only his future is cancelled.
        """
        loop = self._loop()
        future: asyncio.Future[T] = loop.create_future()
        before = self._turns.take() if self._turns.are_of(loop) else []
        self._hand_over([*before, (operation, future, loop)])
        return await future

    async def quick(self, operation: Callable[[apsw.Connection], T]) -> T:
        """`do`, for an operation of microseconds that waits for nothing: it may be done on this event loop."""
        loop = self._loop()
        future: asyncio.Future[T] = loop.create_future()
        job = (operation, future, loop)
        if not self._turns.are_of(loop):
            self._hand_over([job])
        elif not self._turns.is_alone(loop):
            self._turns.gather(job)
        elif (done := self._done_here([job])) is not None:
            _resolve(done)
        else:
            self._hand_over([job])
        return await future

    async def close(self, last: Operation = lambda _: None) -> None:
        """Do what was asked for before, then `last`, and end; a `last` that fails is nobody's loss."""
        if not self._closed:
            loop = self._loop()
            self._closed = True
            self._hand_over([*self._turns.take(), (last, loop.create_future(), loop)])
            self._jobs.put("end")
            await asyncio.to_thread(self._thread.join)

    def _loop(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise StoreError("the store was closed")
        return asyncio.get_running_loop()

    # --- on the event loop

    def _do_turn(self, jobs: list[_Job]) -> None:
        for start in range(0, len(jobs), GROUP):
            group = jobs[start : start + GROUP]
            if (done := self._done_here(group)) is not None:
                _resolve(done)
            else:
                self._hand_over(group)

    def _done_here(self, jobs: list[_Job]) -> list[_Done] | None:
        """None: nothing was done. The thread must do it; it can wait for others, and find out whose fault it is."""
        if self._commit_s > HERE_S or self._waiting or not self._using.acquire(blocking=False):
            return None
        done: list[_Done] | None = None
        try:
            with suppress(Exception):  # it was undone, all of it
                done = self._committed(jobs)
            due_s = self._keeper.wait_s()
        finally:
            self._using.release()
        if self._log.is_long or (due_s is not None and time.monotonic() + due_s < self._looks_at):
            self._jobs.put("look")
        return done

    # --- in the thread

    def _hand_over(self, jobs: list[_Job]) -> None:
        with self._counting:  # one after the other, also where two loops ask at once
            self._waiting += len(jobs)
            for job in jobs:
                self._jobs.put(job)

    def _work(self) -> None:
        while True:
            group = self._gather()
            jobs = [job for job in group if not isinstance(job, str)]
            with self._using, patient(self._connection):
                done = self._commit(jobs)
            with self._counting:
                self._waiting -= len(jobs)
            _deliver(done)
            if "end" in group:
                self._connection.close()
                return
            if self._log.is_long:
                with self._using:
                    self._log.copy_back()

    def _gather(self) -> list[_Job | _Word]:
        with self._using:
            wait_s = self._keeper.wait_s()
            self._looks_at = math.inf if wait_s is None else time.monotonic() + wait_s
        try:
            group = [self._jobs.get(timeout=wait_s)]
        except queue.Empty:
            return []
        while len(group) < GROUP and group[-1] != "end" and not self._jobs.empty():
            group.append(self._jobs.get_nowait())
        return group

    # --- a group

    def _commit(self, jobs: list[_Job]) -> list[_Done]:
        try:
            return self._committed(jobs)
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

    def _committed(self, jobs: list[_Job]) -> list[_Done]:
        """Locks at its beginning: a reader that turns writer half-way is refused if another process has written."""
        db = self._connection
        try:
            db.execute("BEGIN IMMEDIATE")
            self._keeper.begun()
            done = [self._answer(job) for job in jobs]
            self._keeper.flush()
            before = time.monotonic()
            db.execute("COMMIT")
        except BaseException:
            self._keeper.lost()
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        took_s = (time.monotonic() - before) / (1 + len(jobs) // FEW)
        self._commit_s = max(took_s, FADING * self._commit_s)
        return done


def _is_of_one(error: Exception) -> bool:
    """Whether one operation is at fault and not the disk, so that the others can still be done, one by one."""
    return isinstance(error, apsw.ConstraintError | apsw.SQLError) or not isinstance(error, apsw.Error)


def _as_store_error(error: Exception) -> StoreError:
    match error:
        case StoreError():
            return error
        case apsw.ConstraintError():
            return StoreError(f"the ledger refused: {error}")
        case apsw.FullError():
            return StoreError("the store cannot be written: the disk is full; make room, work goes on by itself")
        case apsw.Error():
            return StoreError(f"the store cannot be written: {error}")
        case _:
            return StoreError(f"the store cannot do this: {type(error).__name__}: {error}")


def _deliver(done: list[_Done]) -> None:
    """Tell the callers, with one wake-up for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Done]] = {}
    for one in done:
        by_loop.setdefault(one[0][2], []).append(one)
    for loop, replies in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, replies)
        except RuntimeError:
            continue  # that loop has ended; what was committed stays committed


def _resolve(done: list[_Done]) -> None:
    """On the loop of those who asked."""
    for (_, future, _), value, error in done:
        if future.done():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
            future.exception()  # seen: its caller may have gone away
