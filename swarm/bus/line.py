"""One host as the bus sees it: its link, what waits to be sent to it, and the sending."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from protocols.answers import Answer, Ask, Failed
from protocols.control import Cancel, Overloaded
from protocols.envelope import Envelope
from protocols.ids import AttemptId, HostId
from swarm.bus.base import HostLost, Link

BATCH = 64  # most messages in one call
Serves = frozenset[tuple[str, str]]  # (specialist, tier) pairs that a host answers


@dataclass(slots=True)
class Pending:
    """An ask on its way, until its reply is set."""

    ask: Ask
    reply: asyncio.Future[Answer | Failed]
    due: float | None  # on the monotonic clock; what travels is the time left
    host: HostId
    deliveries: int = 0


@dataclass(slots=True)
class Line:
    """`give_up(pending, failed)` is called for an ask that cannot be sent at all."""

    link: Link
    serves: Serves
    give_up: Callable[[Pending, Failed], None]
    clock: Callable[[], float]
    outbox: deque[Pending | Cancel] = field(default_factory=deque)
    unanswered: int = 0
    answered: int = 0
    deaths: list[float] = field(default_factory=list)
    _filled: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, *waiting: Pending) -> None:
        self.outbox.extend(waiting)
        self._filled.set()

    def cancel(self, id: AttemptId) -> None:
        """Goes before the asks that wait for room, as it makes some."""
        self.outbox.appendleft(Cancel(id=id))
        self._filled.set()

    async def send(self) -> None:
        """Send what waits, for ever. Raises `HostLost`."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self.outbox:
                batch = [self.outbox.popleft() for _ in range(min(BATCH, len(self.outbox)))]
                sent = {e: item for item in batch if (e := self._envelope(item)) is not None}
                refused = await self._deliver(list(sent))
    	        ...
