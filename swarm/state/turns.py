"""The turns of an event loop: who asks alone in one, and what several ask for in one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

J = TypeVar("J")
IN_A_ROW = 8  # most that one task is told it may do at once before others get their turn


class Turns(Generic[J]):
    """Of the first loop that asks, as long as it is open. `end(jobs)` is called with what has gathered in a turn."""

    def __init__(self, end: Callable[[list[J]], None]) -> None:
        self._end = end
        self._claiming = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gathered: list[J] = []
        self._task: asyncio.Task[Any] | None = None  # that asked first in this turn; None: nobody has
        self._n = 0
        self._crowded = False  # whether more than one had to wait for the end of the turn before

    def are_of(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it is this loop's turns that are looked at."""
        if loop is self._loop:
            return True
        with self._claiming:
            if self._loop is None or self._loop.is_closed():
                self._loop, self._gathered, self._task = loop, [], None
            return loop is self._loop

    def is_alone(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether the task that asks now need wait for no other. To be asked before each `gather`, too."""
        task = asyncio.current_task()
        if self._task is None:
            self._task, self._n = task, 0
            loop.call_soon(self._over)
        self._n += 1
        return task is self._task and not self._gathered and not self._crowded and self._n <= IN_A_ROW

    def gather(self, job: J) -> None:
        self._gathered.append(job)

    def take(self) -> list[J]:
        gathered, self._gathered = self._gathered, []
        return gathered

    def _over(self) -> None:
        self._task, self._crowded = None, len(self._gathered) > 1
        self._end(self.take())
