"""The run's holds: taken from the store, waited for while those of others stand in the way."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from protocols.ids import AttemptId, RunId, TaskId
from protocols.money import Amount
from swarm.errors import StoreError
from swarm.state.base import Refusal, Store

AGAIN_S = 0.5  # after which a hold that waits is tried again


class Holds:
    """Shared by all tasks of a run, on one event loop."""

    def __init__(self, store: Store, run: RunId) -> None:
        self._store = store
        self._run = run
        self._ended: asyncio.Event | None = None  # there is one while somebody may wait
        self._broken: str | None = None

    async def take(
        self, attempt: AttemptId, task: TaskId, amount: Amount, *, step: str | None = None, sent: bool = True
    ) -> Refusal | None:
        """Hold `amount`, or say why not. Waits while other holds stand in the way: they may settle for less.

        `step`: one with a limit of its own. `sent`: nothing will say so again, so that a holder who dies is charged.
        Raises `StoreError` when the store cannot be used, and always once the holds are `broken`.
        """
        while True:
            if self._broken is not None:
                raise StoreError(self._broken)
            ended = self._ended = self._ended or asyncio.Event()
            refusal = await self._store.hold(attempt, self._run, task, amount, step=step, sent=sent)
            if refusal is None or not refusal.passing:
                return refusal
            with suppress(TimeoutError):  # another program's holds may end without a word
                async with asyncio.timeout(AGAIN_S):  # `wait_for` may swallow a cancelling that comes just then
                    await ended.wait()

    def ended(self) -> None:
        """Holds have ended: those who wait for room may try again."""
        if self._ended is not None:
            self._ended.set()
            self._ended = None

    def broken(self, why: str) -> None:
        """Some could not be ended, so the books are no longer right: nobody gets a hold, and nobody waits for one."""
        self._broken = why
        self.ended()
