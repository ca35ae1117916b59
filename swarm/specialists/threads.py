"""Threads for code that may never return: bounded, and lost one by one instead of all at once.

A thread cannot be stopped from outside. One whose caller has gone away is let go: it no longer counts against the
calls that may run at once, until too many of them are left behind to believe that the next call will return.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import structlog

from swarm.errors import SwarmError

log = structlog.get_logger(__name__)

T = TypeVar("T")

AT_ONCE = 16  # calls of one pack that run side by side; more of them wait
MOST_ABANDONED = 8


class TooManyAbandoned(SwarmError):
    """So many calls of a pack never came back that no more are made."""

    def __init__(self, pack: str, abandoned: int) -> None:
        super().__init__(pack, abandoned)
        self.pack = pack
        self.abandoned = abandoned

    def __str__(self) -> str:
        return (
            f"pack {self.pack!r} is not called any more: {self.abandoned} of its calls outlived their attempts, and at "
            f"most {MOST_ABANDONED} may; give what run() waits for a timeout of its own, or restart the host"
        )


class Threads:
    """Those of one pack, used from one event loop."""

    def __init__(self, pack: str) -> None:
        self._pack = pack
        self._pool = ThreadPoolExecutor(AT_ONCE + MOST_ABANDONED, thread_name_prefix=f"pack-{pack}")
        self._room = asyncio.Semaphore(AT_ONCE)
        self._left: list[Future[Any]] = []

    @property
    def abandoned(self) -> int:
        """Calls that still run though nobody waits for them."""
        self._left = [future for future in self._left if not future.done()]
        return len(self._left)

    async def call(self, work: Callable[[], T]) -> T:
        """What `work` returns, or raises. Cancelled, it is let go where it has begun.

        Raises `TooManyAbandoned`; `work` was not called then.
        """
        async with self._room:
            if (abandoned := self.abandoned) > MOST_ABANDONED:
                raise TooManyAbandoned(self._pack, abandoned)
            future = self._pool.submit(contextvars.copy_context().run, work)
            try:
                return await asyncio.wrap_future(future)
            except asyncio.CancelledError:
                if not future.cancel() and not future.done():
                    self._left.append(future)
                    log.info("tool.abandoned", pack=self._pack, abandoned=len(self._left))
                raise
