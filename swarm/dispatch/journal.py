"""What has become of a task's attempts, on its way into the store."""

from __future__ import annotations

import asyncio

import msgspec

from protocols.ids import RunId
from protocols.money import Amount
from swarm.dispatch.attempts import NOTHING, Made
from swarm.dispatch.holds import Holds
from swarm.state.base import Attempt, Store

encode = msgspec.msgpack.Encoder().encode


class _Entry(msgspec.Struct, frozen=True):
    """An attempt that is over."""

    attempt: Attempt
    used: Amount
    void: bool


class Journal:
    """One task's. `cost`: what its attempts have used, all together. `place`: how many there have been."""

    def __init__(self, store: Store, run: RunId, holds: Holds) -> None:
        self.cost = NOTHING
        self.place = 0
        self._store = store
        self._run = run
        self._holds = holds
        self._unwritten: list[_Entry] = []

    def over(self, made: Made, became: str) -> None:
        """Note what became of an attempt, in the receipt's words."""
        unused = made.used == NOTHING
        if not unused:
            self.cost += made.used
        event = b"" if made.event is None else encode(made.event)
        attempt = msgspec.structs.replace(
            made.attempt, outcome=became, micro_usd=made.used.micro_usd, place=self._next_place(), event=event
        )
        self._unwritten.append(_Entry(attempt, made.used, void=made.event is None and unused))

    def missed(self, attempt: Attempt) -> None:
        """Note one that could not be made."""
        placed = msgspec.structs.replace(attempt, place=self._next_place())
        self._unwritten.append(_Entry(placed, NOTHING, void=True))

    async def write(self) -> None:
        """Write down what was noted. May be done again after a failure or an interruption: an attempt ends once."""
        if len(self._unwritten) == 1:
            await self._end(self._unwritten[0])
        elif self._unwritten:
            ended = await asyncio.gather(*map(self._end, self._unwritten), return_exceptions=True)
            if errors := [error for error in ended if error is not None]:
                raise errors[0]
        self._unwritten.clear()
        self._holds.ended()

    def _next_place(self) -> int:
        self.place += 1
        return self.place - 1

    async def _end(self, entry: _Entry) -> None:
        if entry.void:
            await self._store.void(entry.attempt, self._run)
        else:
            await self._store.settle(entry.attempt, self._run, entry.used)
