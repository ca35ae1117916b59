"""Asks go out in batches, answers come back, and a host's death loses nothing.

Delivery is at least once; an answer counts once, by the id of its ask. A host that dies is replaced and gets every
ask it had not answered again; an ask that has been delivered `max_deliveries` times goes to the dead letters instead.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import msgspec
import structlog

from protocols.answers import Answer, Ask, Failed
from protocols.control import Cancel, Overloaded
from protocols.envelope import Envelope
from protocols.ids import AttemptId, HostId
from swarm.bus.base import HostLost, Link

log = structlog.get_logger(__name__)

BATCH = 64  # most messages in one call
Serves = frozenset[tuple[str, str]]  # (specialist, tier) pairs that a host answers
Revive = Callable[[HostId], Awaitable[Link]]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up on, and why."""

    envelope: Envelope
    cause: str


@dataclass(frozen=True, slots=True)
class BusStatistics:
    """A frozen look at the bus: asks answered per host, hosts that were replaced, messages sent again."""

    answered: dict[HostId, int]
    restarts: int
    redelivered: int
    unanswered: int
    dead_letters: tuple[DeadLetter, ...]


@dataclass(slots=True)
class _Pending:
    ask: Ask
    reply: asyncio.Future[Answer | Failed]
    due: float | None  # on the monotonic clock; what travels is the time left
    host: HostId
    deliveries: int = 0


@dataclass(slots=True)
class _Line:
    """One host with what waits for it."""

    link: Link
    serves: Serves
    outbox: deque[_Pending | Cancel] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    unanswered: int = 0
    answered: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    deaths: list[float] = field(default_factory=list)


class Bus:
    """Sends asks to the least busy host that serves them. Use as an async context manager.

    `revive(host)` must return a link to a fresh host of that name; three deaths within a minute end the attempts, and
    what waited for that host comes back as `Failed(reason="host_died")`.
    """

    def __init__(
        self,
        hosts: Iterable[tuple[Link, Serves]],
        revive: Revive,
        *,
        max_deliveries: int = 3,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lines = {link.host: _Line(link, serves) for link, serves in hosts}
        self._revive = revive
        self._max_deliveries = max_deliveries
        self._clock = clock
        self._pending: dict[AttemptId, _Pending] = {}
        self._dead: deque[DeadLetter] = deque(maxlen=1000)
        self._restarts = 0
        self._redelivered = 0
        self._closed = False

    async def __aenter__(self) -> Bus:
        for line in self._lines.values():
            self._start(line)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        for pending in self._pending.values():
            if not pending.reply.done():
                pending.reply.set_result(_after_the_end(pending.ask))
        for line in self._lines.values():
            for task in line.tasks:
                task.cancel()
            await asyncio.gather(*line.tasks, return_exceptions=True)
            await _end(line.link)

    async def ask(self, ask: Ask) -> Answer | Failed:
        """Send `ask` and wait for what becomes of it. Cancelling the wait cancels the work at the host."""
        if self._closed:
            return _after_the_end(ask)
        line = self._choose(ask)
        if line is None:
            detail = f"no host serves tier {ask.tier!r} of {ask.specialist!r}"
            return Failed(id=ask.id, reason="unavailable", detail=detail)
        due = None if ask.left_ms is None else self._clock() + ask.left_ms / 1000
        pending = _Pending(ask, asyncio.get_running_loop().create_future(), due, line.link.host)
        self._pending[ask.id] = pending
        self._post(line, pending)
        try:
            return await pending.reply
        except asyncio.CancelledError:
            current = self._lines[pending.host]
            current.outbox.appendleft(Cancel(id=ask.id))  # before the asks that wait for room, which it makes
            current.wake.set()
            raise
        finally:
            del self._pending[ask.id]
            self._lines[pending.host].unanswered -= 1

    def statistics(self) -> BusStatistics:
        return BusStatistics(
            answered={host: line.answered for host, line in self._lines.items()},
            restarts=self._restarts,
            redelivered=self._redelivered,
            unanswered=len(self._pending),
            dead_letters=tuple(self._dead),
        )

    def _choose(self, ask: Ask) -> _Line | None:
        able = [line for line in self._lines.values() if (ask.specialist, ask.tier) in line.serves]
        return min(able, key=lambda line: line.unanswered, default=None)

    def _post(self, line: _Line, pending: _Pending) -> None:
        pending.host = line.link.host
        line.unanswered += 1
        line.outbox.append(pending)
        line.wake.set()

    def _start(self, line: _Line) -> None:
        line.tasks = [asyncio.create_task(self._serve(line), name=f"bus-{line.link.host}")]

    async def _serve(self, line: _Line) -> None:
        """Keep one host supplied and listened to, and replace it when it dies."""
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._send(line))
                    group.create_task(self._listen(line))
            except* Exception as lost:  # a link that fails in any other way is as good as lost
                cause = str(lost.exceptions[0]) or repr(lost.exceptions[0])
            if not await self._replace(line, cause):
                return

    async def _send(self, line: _Line) -> None:
        while True:
            await line.wake.wait()
            line.wake.clear()
            while line.outbox:
                batch = [line.outbox.popleft() for _ in range(min(BATCH, len(line.outbox)))]
                envelopes = [e for item in batch if (e := self._envelope(line, item)) is not None]
                refused = await self._deliver(line, envelopes)
                if refused:
                    await self._put_back(line, refused)

    async def _deliver(self, line: _Line, batch: list[Envelope]) -> list[Overloaded]:
        """All of `batch` in one call; one that cannot be sent at all ends here and holds up no other."""
        if not batch:
            return []
        try:
            return await line.link.deliver(batch)
        except HostLost:
            raise
        except Exception as e:
            if len(batch) > 1:
                half = len(batch) // 2
                return [*await self._deliver(line, batch[:half]), *await self._deliver(line, batch[half:])]
            cause = f"cannot be sent: {e}"
            if (pending := self._pending.get(batch[0].body.id)) is not None and not pending.reply.done():
                self._bury(pending, Failed(id=pending.ask.id, reason="error", detail=cause))
            return []

    def _envelope(self, line: _Line, item: _Pending | Cancel) -> Envelope | None:
        if isinstance(item, Cancel):
            return Envelope(to=line.link.host, sender="dispatcher", body=item)
        if item.reply.done():
            return None
        item.deliveries += 1
        left = None if item.due is None else max(0, int((item.due - self._clock()) * 1000))
        ask = item.ask if left is None else msgspec.structs.replace(item.ask, left_ms=left)
        return Envelope(to=line.link.host, sender="dispatcher", body=ask, delivery=item.deliveries)

    async def _put_back(self, line: _Line, refused: list[Overloaded]) -> None:
        again = [p for r in refused if (p := self._pending.get(r.id)) is not None]
        for pending in again:
            pending.deliveries -= 1  # it was not taken, so it was not delivered
        line.outbox.extendleft(reversed(again))
        await asyncio.sleep(max(r.retry_ms for r in refused) / 1000)

    async def _listen(self, line: _Line) -> None:
        while True:
            for envelope in await line.link.collect():
                body = envelope.body
                if not isinstance(body, Answer | Failed):
                    self._dead.append(DeadLetter(envelope, "the dispatcher takes answers only"))
                    continue
                pending = self._pending.get(body.id)
                if pending is None or pending.reply.done():
                    continue  # cancelled meanwhile, or answered by the host that was thought dead
                line.answered += 1
                pending.reply.set_result(body)

    async def _replace(self, line: _Line, cause: str) -> bool:
        """A fresh host in place of a dead one, with its unanswered asks. False when it dies too often."""
        host, now = line.link.host, self._clock()
        line.deaths = [t for t in line.deaths if now - t < 60] + [now]
        log.warning("host.lost", host=host, cause=cause, unanswered=line.unanswered, deaths=len(line.deaths))
        await _end(line.link)
        try:
            if len(line.deaths) > 3:
                raise HostLost(f"host {host!r} died {len(line.deaths)} times within a minute: {cause}")
            line.link = await self._revive(host)
        except Exception as e:
            log.error("host.given_up", host=host, cause=str(e))
            line.serves = frozenset()
            self._move(self._orphans(line), str(e))
            return False
        self._restarts += 1
        self._resend(line, self._orphans(line), cause)
        return True

    def _orphans(self, line: _Line) -> list[_Pending]:
        """What a lost host has not answered, sent or not, in the order it was asked."""
        line.outbox.clear()
        return [p for p in self._pending.values() if p.host == line.link.host and not p.reply.done()]

    def _resend(self, line: _Line, orphans: list[_Pending], cause: str) -> None:
        for pending in orphans:
            if pending.deliveries >= self._max_deliveries:
                self._bury(pending, _died(pending, cause))
            else:
                self._redelivered += pending.deliveries > 0
                line.outbox.append(pending)
        line.wake.set()

    def _move(self, orphans: list[_Pending], cause: str) -> None:
        """Give a lost host's work to another that serves it, or end it."""
        for pending in orphans:
            other = self._choose(pending.ask)
            if other is None or pending.deliveries >= self._max_deliveries:
                self._bury(pending, _died(pending, cause))
            else:
                self._lines[pending.host].unanswered -= 1
                self._redelivered += pending.deliveries > 0
                self._post(other, pending)

    def _bury(self, pending: _Pending, failed: Failed) -> None:
        envelope = Envelope(to=pending.host, sender="dispatcher", body=pending.ask, delivery=pending.deliveries)
        self._dead.append(DeadLetter(envelope, failed.detail))
        log.error("message.dead", attempt=failed.id, deliveries=pending.deliveries, cause=failed.detail)
        pending.reply.set_result(failed)


def _died(pending: _Pending, cause: str) -> Failed:
    return Failed(id=pending.ask.id, reason="host_died", detail=cause, unknown=pending.deliveries > 0)


def _after_the_end(ask: Ask) -> Failed:
    return Failed(id=ask.id, reason="cancelled", detail="the swarm was closed")


async def _end(link: Link) -> None:
    try:
        await link.close()
    except Exception as e:
        log.warning("host.not_closed", host=link.host, cause=str(e))
