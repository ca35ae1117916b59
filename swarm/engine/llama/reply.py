"""Bringing a result from the engine's thread to the event loop that asked."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class Reply:
    """Where a result goes: a future of the event loop that asked."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self._loop.create_future()

    def send(self, outcome: object) -> None:
        """Thread-safe. Nobody may be listening any more: the task was cancelled, or its event loop has ended."""
        try:
            self._loop.call_soon_threadsafe(self._settle, outcome)
        except RuntimeError:
            log.debug("engine.reply.unheard")

    def _settle(self, outcome: object) -> None:
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)
