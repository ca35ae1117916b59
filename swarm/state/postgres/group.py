"""Operations that wait together share one transaction, as with SQLite's writer: one commit for all of them.

While one commit is under way the next group gathers, so a dispatcher has one transaction open for its ledger at a time,
and many dispatchers take turns at the rows that they share.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg_pool import AsyncConnectionPool

from swarm.errors import StoreError
from swarm.state.base import OwnerId
from swarm.state.owners import Owners
from swarm.state.postgres.address import Address
from swarm.state.postgres.page import Moved, Needs, Page

T = TypeVar("T")
Pool = AsyncConnectionPool[psycopg.AsyncConnection[tuple[Any, ...]]]
Rule = Callable[[Page], Any]

GROUP = 256  # most operations in one transaction
TRIES = 8  # of a transaction that another one has crossed
BACK_OFF_S = 0.005  # more after each try
RETRY_S = 1.0  # before what could not be written, and nobody waits for, is tried again
_CROSSED = (Moved, errors.SerializationFailure, errors.DeadlockDetected, errors.UniqueViolation)

_BEAT = "INSERT INTO owners VALUES (%s, 1) ON CONFLICT (id) DO UPDATE SET beats = owners.beats + 1"
_OPEN = """
SELECT DISTINCT holds.owner, owners.beats FROM holds LEFT JOIN owners ON owners.id = holds.owner
WHERE holds.state IN ('held', 'sent')
"""
_GONE = """
DELETE FROM owners WHERE id = %(owner)s AND NOT EXISTS (
  SELECT 1 FROM holds WHERE owner = %(owner)s AND state IN ('held', 'sent'))
"""


@dataclass(frozen=True, slots=True)
class _Job:
    needs: Needs
    rule: Rule
    future: asyncio.Future[Any] | None = None


_Done = tuple[_Job, Any, Exception | None]


class Group:
    """For one event loop. `clock`: a monotonic clock in seconds."""

    def __init__(self, pool: Pool, address: Address, owner: OwnerId, clock: Callable[[], float], ttl_s: float) -> None:
        self._pool = pool
        self._address = address
        self._owner = owner
        self._clock = clock
        self._owners = Owners(owner, clock, ttl_s)
        self._jobs: list[_Job] = []
        self._due: list[tuple[float, str]] = []  # when unsent holds of ours expire
        self._not_before = 0.0
        self._something = asyncio.Event()
        self._closed = False
        self._worker = asyncio.create_task(self._work(), name="store-group")

    async def do(self, needs: Needs, rule: Callable[[Page], T]) -> T:
        """The rule's answer, once it is committed. Raises `StoreError`.

        A rule that raises `StoreError` has changed nothing by then, and harms no other. A caller who goes away does not
        undo what is being committed.
        """
        self._check_open()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put(_Job(needs, rule, future))
        return await future

    async def transact(self, work: Callable[[psycopg.AsyncConnection], Awaitable[T]]) -> T:
        """One transaction of its own; done again from its beginning when another one has crossed it."""
        self._check_open()
        try:
            return await self._transact(work)
        except Exception as e:
            raise self._address.store_error(e) from None

    async def close(self) -> None:
        """Do what was asked for before, tell that nobody has to watch for us, and end."""
        if not self._closed:
            self._closed = True
            self._something.set()
            await self._worker
            try:
                async with self._pool.connection(timeout=RETRY_S) as db:
                    await db.execute(_GONE, {"owner": self._owner})
            except psycopg.Error:
                pass  # the others find out by themselves
            await self._pool.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store was closed")

    def _put(self, job: _Job) -> None:
        self._jobs.append(job)
        self._something.set()

    # --- the worker

    async def _work(self) -> None:
        while self._jobs or not self._closed:
            if not self._jobs and not self._closed:
                await self._wait()
            jobs, self._jobs = self._jobs[:GROUP], self._jobs[GROUP:]
            for job, value, error in await self._commit([*self._expiring(), *jobs]):
                _resolve(job, value, error)

    async def _wait(self) -> None:
        """Until there is something to do, or something is due though nobody asks."""
        self._something.clear()
        times = [self._due[0][0]] if self._due else []
        times += [] if self._owners.next is None else [self._owners.next]
        now = self._clock()
        try:
            async with asyncio.timeout(max(0.0, min(times) - now, self._not_before - now) if times else None):
                await self._something.wait()
        except TimeoutError:
            pass

    def _expiring(self) -> list[_Job]:
        ids = []
        while self._due and self._due[0][0] <= self._clock():
            ids.append(heapq.heappop(self._due)[1])
        return [_Job(Needs(holds=tuple(ids)), lambda page: page.lapse(ids))] if ids else []

    async def _commit(self, jobs: list[_Job]) -> list[_Done]:
        try:
            return await self._transact(lambda db: self._applied(db, jobs))
        except Exception as e:
            if len(jobs) > 1 and _is_of_one(e):
                return [done for job in jobs for done in await self._commit([job])]
            self._not_before = self._clock() + RETRY_S
            for id in (id for job in jobs if job.future is None for id in job.needs.holds):
                heapq.heappush(self._due, (self._not_before, id))
            return [(job, None, self._address.store_error(e)) for job in jobs]

    async def _transact(self, work: Callable[[psycopg.AsyncConnection], Awaitable[T]]) -> T:
        for n in range(TRIES):
            try:
                async with self._pool.connection() as db, db.transaction():
                    return await work(db)
            except _CROSSED:
                if n == TRIES - 1:
                    raise
                await asyncio.sleep(n * BACK_OFF_S)
        raise AssertionError("the last try returns or raises")

    async def _applied(self, db: psycopg.AsyncConnection, jobs: list[_Job]) -> list[_Done]:
        page = Page(self._owner, self._clock)
        await page.read(db, [job.needs for job in jobs])
        done = [_answer(page, job) for job in jobs]
        await page.write(db)
        await self._tend(db, page)
        for due in page.due:
            heapq.heappush(self._due, due)
        return done

    async def _tend(self, db: psycopg.AsyncConnection, page: Page) -> None:
        """Tell that we live, when it is time; what the dead have left open is ended in the next group."""
        if page.holds_something:
            self._owners.wake()
        if self._owners.due():
            await db.execute(_BEAT, (self._owner,))
            found = await (await db.execute(_OPEN)).fetchall()
            for dead in self._owners.dead(found):
                self._put(_Job(Needs(owners=(dead,)), partial(Page.recover, owner=dead)))


def _answer(page: Page, job: _Job) -> _Done:
    try:
        return job, job.rule(page), None
    except StoreError as e:  # a refusal is an answer
        return job, None, e


def _is_of_one(error: Exception) -> bool:
    """Whether one operation is at fault and not the database, so that the others can still be done, one by one."""
    return isinstance(error, psycopg.IntegrityError | psycopg.DataError) or not isinstance(error, psycopg.Error)


def _resolve(job: _Job, value: Any, error: Exception | None) -> None:
    future = job.future
    if future is None or future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
        future.exception()  # seen: its caller may have gone away
