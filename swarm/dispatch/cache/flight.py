"""Equal questions that are asked at the same time: one is computed, the others wait for what it brings."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Failed(Exception):
    """The one that was waited for found nothing that others may have."""


class HandedOver(Exception):
    """The one that was waited for has gone away; somebody else is to take its place."""


class Flights(Generic[T]):
    """By key. For one event loop."""

    def __init__(self) -> None:
        self._open: dict[Hashable, asyncio.Future[T]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def lead(self, key: Hashable) -> bool:
        """Whether the caller is the one to compute this now. He must then `land`, `fail` or `leave`."""
        if key in self._open:
            return False
        self._open[key] = asyncio.get_running_loop().create_future()
        return True

    async def follow(self, key: Hashable) -> T:
        """What the one who leads finds. Raises `Failed` and `HandedOver`."""
        return await asyncio.shield(self._open[key])

    def land(self, key: Hashable, found: T) -> None:
        future = self._open.pop(key)
        if not future.done():
            future.set_result(found)

    def fail(self, key: Hashable) -> None:
        """Everybody who waits goes on alone."""
        self._end(key, Failed())

    def leave(self, key: Hashable) -> None:
        """One of those who wait takes over."""
        self._end(key, HandedOver())

    def _end(self, key: Hashable, error: Exception) -> None:
        future = self._open.pop(key)
        if not future.done():
            future.set_exception(error)
            future.exception()  # nobody may be waiting
