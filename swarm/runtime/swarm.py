"""What a caller holds: a launched swarm."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sized
from types import TracebackType
from typing import Any

from protocols.answers import Ask
from protocols.control import Health, Ready
from protocols.events import Event, TaskFinished
from protocols.ids import HostId, RunId, new_id
from protocols.tasks import Result, Task
from swarm.bus.bus import BusStatistics
from swarm.dispatch.setting import Publish
from swarm.observe.receipt import Receipt
from swarm.plan.plan import Plan
from swarm.runtime.admission import Admission
from swarm.runtime.base import Ends, Working
from swarm.runtime.loop import Loop

Item = Mapping[str, Any]
BUFFERED = 4  # times `max_in_flight`: results that `map` keeps while an earlier one is not there


class Swarm:
    """A swarm that is running. Made by `swarm.launch`; use as a context manager, or call `close`.

    It works on an event loop of its own in a thread of its own, so every method may be called from plain code, from a
    running event loop, or from a notebook.
    """

    def __init__(self, plan: Plan, session: Working, loop: Loop) -> None:
        self.plan = plan
        self._session = session
        self._loop = loop
        self._admission = Admission(plan.runtime.max_in_flight)
        self._closed = False

    @property
    def run_id(self) -> RunId:
        """The name under which the store keeps this run; `swarm receipt RUN` takes it."""
        return self._session.run

    def run_sync(self, item: Item) -> Result:
        """Answer one item and wait for it. Every task ends in exactly one status; look at `result.status`.

        Raises `Overloaded` where too many wait already: nothing was begun, and the error says when to come back.
        """
        with self._admission.place():
            return self._loop.wait(self._run(item))

    async def run(self, item: Item, *, position: int | None = None) -> Result:
        """Answer one item. Cancelling cancels the task, down to the decode that is running.

        `position`: its place among the caller's items; it is kept, and stands in the result. Raises `Overloaded` where
        too many wait already: nothing was begun, and the error says when to come back.
        """
        return await self._answered(item, None, position)

    async def resume(self, run: RunId) -> list[Result]:
        """Go on with a run that was broken off, and work on that one from now on; the results of all its tasks.

        No step that was finished is asked or paid again. To be called before this swarm is asked anything. Raises
        `StoreError` for a run that the store does not know, or that was made by another plan or calibration.
        """
        return await self._loop.bridge(self._session.resume(run))

    def resume_sync(self, run: RunId) -> list[Result]:
        """`resume` for plain code."""
        return self._loop.wait(self._session.resume(run))

    async def map(self, items: Iterable[Item] | AsyncIterable[Item], *, ordered: bool = True) -> AsyncIterator[Result]:
        """Answers to many items, at most `runtime.max_in_flight` at once.

        In the order of the items, or with `ordered=False` as they finish; `result.position` is the item's place.
        Items are taken only as room is made, so an endless source is fine.
        """
        if isinstance(items, Sized):
            self.expect(len(items))
        window = self.plan.runtime.max_in_flight
        source = _aiter(items)
        running: dict[asyncio.Future[Any], int] = {}
        over: deque[asyncio.Future[Any]] = deque()  # of those that run or are fetched
        stirred = asyncio.Event()
        ready: dict[int, Result] = {}
        given, due = 0, 0

        def begun(work: Awaitable[Any]) -> asyncio.Future[Any]:
            future = asyncio.ensure_future(work)
            future.add_done_callback(over.append)
            future.add_done_callback(lambda _: stirred.set())
            return future

        fetch: asyncio.Future[Any] | None = begun(anext(source))

        def has_room() -> bool:
            return len(running) < window and len(running) + len(ready) < BUFFERED * window

        try:
            while fetch is not None or running:
                await stirred.wait()
                stirred.clear()
                while over:
                    future = over.popleft()
                    if future in running:
                        position = running.pop(future)
                        ready[position] = future.result()
                if fetch is not None and fetch.done() and has_room():
                    try:
                        running[begun(self._answered(fetch.result(), None, given, patient=True))] = given
                        given += 1
                        fetch = begun(anext(source))
                    except StopAsyncIteration:
                        fetch = None
                while ready and (due in ready or not ordered):
                    yield ready.pop(due if ordered else next(iter(ready)))
                    due += 1
                    stirred.set()  # there may be room again
        finally:
            leftover = [*running, fetch] if fetch is not None else [*running]
            for future in leftover:
                future.cancel()
            await asyncio.gather(*leftover, return_exceptions=True)

    def map_sync(self, items: Iterable[Item]) -> Iterator[Result]:
        """`map` for plain code, in the order of the items."""
        own = Loop()
        results = self.map(items)
        try:
            while True:
                try:
                    yield own.wait(_next(results))
                except StopAsyncIteration:
                    return
        finally:
            own.stop()

    async def stream(self, item: Item) -> AsyncIterator[Event]:
        """What happens to one item, as it happens; the last event is `TaskFinished` with the result."""
        here = asyncio.get_running_loop()
        seen: asyncio.Queue[Event] = asyncio.Queue()

        def tell(event: Event) -> None:
            here.call_soon_threadsafe(seen.put_nowait, event)

        running = asyncio.ensure_future(self._answered(item, tell))
        try:
            while True:
                event = asyncio.ensure_future(seen.get())
                await asyncio.wait({event, running}, return_when=asyncio.FIRST_COMPLETED)
                if not event.done():
                    event.cancel()
                    running.result()  # ended without a last event: raises why
                    return
                if isinstance(event.result(), TaskFinished):
                    await running  # also what follows its end: a person's line is written
                    yield event.result()
                    return
                yield event.result()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def expect(self, items: int) -> None:
        """Say that so many more items will come, so that a budget can be made to last them. `map` does so for lists."""
        self._session.expect(items)

    def retry(self, ask: Ask) -> Result:
        """Ask once more what a run has given up on (`swarm dead`), as a run of its own."""
        return self._loop.wait(self._session.retry(ask))

    def receipt(self) -> Receipt:
        """What this run has cost so far, tier by tier, and what the always-strong way would have cost."""
        return self._loop.wait(self._session.receipt())

    def hosts(self) -> dict[HostId, Ready]:
        """Each host as it last reported itself: node, process id, models by hash, calibrations."""
        return self._session.hosts()

    def health(self) -> list[Health]:
        """Each living host's load and memory now."""
        return self._loop.wait(self._session.health())

    def statistics(self) -> BusStatistics:
        """A frozen look at the bus: answers per host, restarts, redeliveries, dead letters."""
        return self._loop.wait(self._session.statistics())

    def stop_tasks(self) -> None:
        """Cancel what runs and wait until it has ended; the swarm stays open."""
        self._loop.wait(self._session.stop_tasks())

    def finish(self) -> None:
        """Cancel what runs and end the run, so that `receipt` is final. Only `close` is left to do then."""
        self._loop.wait(self._session.finish())

    def close(self) -> None:
        """Cancel what runs, end the hosts, close the store; a detached swarm goes on. May be called twice."""
        if not self._closed:
            self._closed = True
            try:
                self._loop.wait(self._session.close())
            finally:
                self._loop.stop()

    def shut_down(self) -> None:
        """`close`, and a detached swarm ends too, with its hosts."""
        try:
            if not self._closed and isinstance(self._session, Ends):
                self._loop.wait(self._session.end())
        finally:
            self.close()

    def __enter__(self) -> Swarm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Swarm:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    async def _answered(
        self, item: Item, publish: Publish | None = None, position: int | None = None, *, patient: bool = False
    ) -> Result:
        """`patient`: for who takes no more than he has room for."""
        with self._admission.place(patient=patient):
            return await self._loop.bridge(self._run(item, publish, position))

    async def _run(self, item: Item, publish: Publish | None = None, position: int | None = None) -> Result:
        if not isinstance(item, Mapping):
            reason = f"an item is a mapping from input names to values, not {type(item).__name__}"
            return Result(task=new_id("t"), status="failed", reason=reason, position=position)
        task = Task(id=new_id("t"), run=self.run_id, input=dict(item), position=position)
        return await self._session.answer(task, publish)


async def _next(results: AsyncIterator[Result]) -> Result:
    return await anext(results)


async def _aiter(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
