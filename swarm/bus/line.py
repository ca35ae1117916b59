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
from swarm.bus.local import LocalLink

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
    """`give_up(pending, failed)` is called for an ask that cannot be sent at all.

    An ask that has outlived all its hosts but one delivery may be what kills them. It is sent alone and waited for, so
    that the others, which were only near it, do not share its end.
    """

    link: Link
    serves: Serves
    give_up: Callable[[Pending, Failed], None]
    clock: Callable[[], float]
    max_deliveries: int
    unanswered: int = 0
    answered: int = 0
    deaths: list[float] = field(default_factory=list)
    _outbox: deque[Pending | Cancel] = field(default_factory=deque)
    _filled: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, waiting: Pending) -> None:
        self._outbox.append(waiting)
        self._filled.set()

    async def answered_here(self, ask: Ask) -> Answer | Failed | None:
        """The answer of a host that may be asked without a message; `None` where it may not, or has no room now."""
        link = self.link
        if not isinstance(link, LocalLink) or link.desk is None:
            return None
        self.unanswered += 1
        try:
            reply = await link.desk.answer(ask)
        finally:
            self.unanswered -= 1
        if isinstance(reply, Overloaded):
            return None
        self.answered += 1
        return reply

    def cancel(self, id: AttemptId) -> None:
        """Goes before the asks that wait for room, as it makes some."""
        self._outbox.appendleft(Cancel(id=id))
        self._filled.set()

    def clear(self) -> None:
        self._outbox.clear()

    async def send(self) -> None:
        """Send what waits, for ever. Raises `HostLost`, and whatever else the link raises for all that it is given."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._outbox:
                batch = self._next_batch()
                for item in batch:
                    if isinstance(item, Pending):
                        item.deliveries += 1
                if refused := await self._deliver(batch):
                    await self._put_back(batch, {r.id: r for r in refused})
                for item in batch:
                    if isinstance(item, Pending) and item.deliveries == self.max_deliveries > 1:
                        await asyncio.wait({item.reply})

    def _next_batch(self) -> list[Pending | Cancel]:
        """What is still wanted, in order; a suspect comes alone."""
        batch: list[Pending | Cancel] = []
        while self._outbox and len(batch) < BATCH:
            item = self._outbox[0]
            if isinstance(item, Pending) and not item.reply.done() and self._is_suspect(item):
                return batch or [self._outbox.popleft()]
            self._outbox.popleft()
            if isinstance(item, Cancel) or not item.reply.done():
                batch.append(item)
        return batch

    def _is_suspect(self, item: Pending) -> bool:
        return 0 < item.deliveries == self.max_deliveries - 1

    async def _deliver(self, batch: list[Pending | Cancel]) -> list[Overloaded]:
        """All of `batch` in one call. One that cannot be sent at all is given up and holds up no other."""
        if not batch:
            return []
        try:
            return await self.link.deliver([self._envelope(item) for item in batch])
        except HostLost:
            raise
        except Exception as e:
            if len(batch) > 1:
                half = len(batch) // 2
                return [*await self._deliver(batch[:half]), *await self._deliver(batch[half:])]
            if isinstance(batch[0], Pending) and not batch[0].reply.done():
                failed = Failed(id=batch[0].ask.id, reason="error", detail=f"cannot be sent: {e}")
                self.give_up(batch[0], failed)
            return []

    def _envelope(self, item: Pending | Cancel) -> Envelope:
        if isinstance(item, Cancel):
            return Envelope(to=self.link.host, sender="dispatcher", body=item)
        left = None if item.due is None else max(0, int((item.due - self.clock()) * 1000))
        ask = item.ask if left is None else msgspec.structs.replace(item.ask, left_ms=left)
        return Envelope(to=self.link.host, sender="dispatcher", body=ask, delivery=item.deliveries)

    async def _put_back(self, batch: list[Pending | Cancel], refused: dict[AttemptId, Overloaded]) -> None:
        again = [item for item in batch if isinstance(item, Pending) and item.ask.id in refused]
        for pending in again:
            pending.deliveries -= 1  # it was not taken, so it was not delivered
        self._outbox.extendleft(reversed(again))
        await asyncio.sleep(max(r.retry_ms for r in refused.values()) / 1000)
