"""The event loop that a swarm works on, whatever its caller runs on."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from swarm.errors import SwarmError

T = TypeVar("T")

CLEAN_UP_S = 15.0  # how long cancelled work may take to put things in order


class Mail:
    """Calls into an event loop from other threads. To wake a loop is dear, so those that come together wake it once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[Callable[[], object]] = deque()
        self._awake = False

    def post(self, call: Callable[[], object]) -> None:
        """Let the loop make this call soon, after those posted before. Raises `RuntimeError` when it is closed."""
        self._calls.append(call)
        if not self._awake:
            self._awake = True
            self._loop.call_soon_threadsafe(self._take_in)

    def _take_in(self) -> None:
        self._awake = False  # before looking: what comes from now on wakes the loop again
        while self._calls:
            self._calls.popleft()()


class Loop:
    """An event loop in a daemon thread. Cancelling is always waited for: what was begun is cleaned up."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="swarm", daemon=True)
        self._thread.start()
        self._stopped = False
        self._mail = Mail(self._loop)
        self._callers: WeakKeyDictionary[asyncio.AbstractEventLoop, Mail] = WeakKeyDictionary()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` there and wait here. An interrupt cancels it, and is raised once it has cleaned up."""
        if threading.current_thread() is self._thread:
            work.close()
            raise SwarmError("a swarm cannot be waited for on its own event loop; await it instead")
        future, ended = self._submitted(work)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                ended.wait(CLEAN_UP_S)
            raise

    async def bridge(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` there and await it here; cancelling here cancels there."""
        self._check_open(work)
        here = asyncio.get_running_loop()
        home = self._callers.get(here)
        if home is None:
            home = self._callers[here] = Mail(here)
        reply: asyncio.Future[T] = here.create_future()
        crossing = _Crossing(work, reply, home)
        self._mail.post(crossing.begin)
        try:
            return await reply
        except asyncio.CancelledError:
            self._mail.post(crossing.cancel)
            raise

    def stop(self) -> None:
        """Cancel what is left, let it clean up, and end the thread. May be called twice."""
        if self._stopped:
            return
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._drain(), self._loop).result(CLEAN_UP_S)
        self._stopped = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._loop.close()

    def _submitted(self, work: Coroutine[Any, Any, T]) -> tuple[Future[T], threading.Event]:
        self._check_open(work)
        ended = threading.Event()

        async def run() -> T:
            try:
                return await work
            finally:
                ended.set()

        return asyncio.run_coroutine_threadsafe(run(), self._loop), ended

    def _check_open(self, work: Coroutine[Any, Any, Any]) -> None:
        if self._stopped:
            work.close()
            raise SwarmError("the swarm was closed; launch it again")

    async def _drain(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            if not task.cancelling():  # a second cancel would cut short what cleans up after the first
                task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_asyncgens()


class _Crossing(Generic[T]):
    """Work on the swarm's loop whose end is told on the loop of whoever asked for it."""

    __slots__ = ("_home", "_task", "_work", "reply")

    def __init__(self, work: Coroutine[Any, Any, T], reply: asyncio.Future[T], home: Mail) -> None:
        self.reply = reply
        self._work = work
        self._home = home
        self._task: asyncio.Task[T] | None = None

    def begin(self) -> None:
        self._task = asyncio.ensure_future(self._work)
        self._task.add_done_callback(self._ended)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[T]) -> None:
        with suppress(RuntimeError):  # the caller's loop has ended, so nobody wants to know
            self._home.post(self._tell)

    def _tell(self) -> None:
        task, reply = self._task, self.reply
        assert task is not None
        error = None if task.cancelled() else task.exception()
        if reply.done():  # cancelled
            return
        if task.cancelled():
            reply.cancel()
        elif error is not None:
            reply.set_exception(error)
        else:
            reply.set_result(task.result())
