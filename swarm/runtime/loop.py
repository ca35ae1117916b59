"""The event loop that a swarm works on, whatever its caller runs on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from swarm.errors import SwarmError

T = TypeVar("T")

CLEAN_UP_S = 15.0  # how long cancelled work may take to put things in order


class Loop:
    """An event loop in a daemon thread. Cancelling is always waited for: what was begun is cleaned up."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="swarm", daemon=True)
        self._thread.start()
        self._stopped = False

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
        future, _ = self._submitted(work)
        return await asyncio.wrap_future(future)

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
        if self._stopped:
            work.close()
            raise SwarmError("the swarm was closed; launch it again")
        ended = threading.Event()

        async def run() -> T:
            try:
                return await work
            finally:
                ended.set()

        return asyncio.run_coroutine_threadsafe(run(), self._loop), ended

    async def _drain(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            if not task.cancelling():  # a second cancel would cut short what cleans up after the first
                task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
