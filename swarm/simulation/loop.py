"""An event loop whose time goes on only when nothing is left to do at the moment."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class Stuck(AssertionError):
    """Everybody waits, and nothing will ever happen."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual, in seconds. Nothing outside the program can be waited for."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        super().__init__(_Leaps(self))

    def time(self) -> float:
        return self.now


class _Leaps(selectors.SelectSelector):
    """Where a loop would wait for the next timer, time leaps to it."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise Stuck(f"nothing is left to wait for at {self._loop.now:.3f} s, and the program has not ended")
        self._loop.now += timeout
        return ready
