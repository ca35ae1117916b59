"""Asks go out in batches, answers come back, and a host's death loses nothing.

Delivery is at least once; an answer counts once, by the id of its ask. A host that dies is replaced and gets every
ask it had not answered again; an ask that has been delivered `max_deliveries` times, the last time alone, goes to the
dead letters instead.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import structlog

from protocols.answers import Answer, Ask, Failed
from protocols.control import Health
from protocols.envelope import Envelope
from protocols.ids import AttemptId, HostId
from swarm.bus.base import HostLost, Link
from swarm.bus.line import Line, Pending, Serves

log = structlog.get_logger(__name__)

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


class Bus:
    """Sends asks to the least busy host that serves them. Use as an async context manager.

    `revive(host)` must return a link to a fresh host of that name. A host that dies for the fourth time within a minute
    is given up: what waited for it goes to another that serves it, or comes back as `Failed(reason="host_died")`.
    """

    def __init__(
        self,
        hosts: Iterable[tuple[Link, Serves]],
        revive: Revive,
        *,
        max_deliveries: int = 3,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lines = {link.host: Line(link, serves, self._bury, clock, max_deliveries) for link, serves in hosts}
        self._serving: list[asyncio.Task[None]] = []
        self._revive = revive
        self._max_deliveries = max_deliveries
        self._clock = clock
        self._pending: dict[AttemptId, Pending] = {}
        self._dead: deque[DeadLetter] = deque(maxlen=1000)
        self._restarts = 0
        self._redelivered = 0
        self._closed = False

    async def __aenter__(self) -> Bus:
        for host, line in self._lines.items():
            self._serving.append(asyncio.create_task(self._serve(line), name=f"bus-{host}"))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        for pending in self._pending.values():
            if not pending.reply.done():
                pending.reply.set_result(_after_the_end(pending.ask))
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        for line in self._lines.values():
            await _end(line.link)

    async def ask(self, ask: Ask) -> Answer | Failed:
        """Send `ask` and wait for what becomes of it. Cancelling the wait cancels the work at the host."""
        if self._closed:
            return _after_the_end(ask)
        line = self._choose(ask)
        if line is None:
            detail = f"no host serves tier {ask.tier!r} of {ask.specialist!r}"
            return Failed(id=ask.id, reason="unavailable", detail=detail)
        if (reply := await line.answered_here(ask)) is not None:
            return reply
        due = None if ask.left_ms is None else self._clock() + ask.left_ms / 1000
        pending = Pending(ask, asyncio.get_running_loop().create_future(), due, line.link.host)
        self._pending[ask.id] = pending
        self._post(line, pending)
        try:
            return await pending.reply
        except asyncio.CancelledError:
            self._lines[pending.host].cancel(ask.id)
            raise
        finally:
            del self._pending[ask.id]
            self._lines[pending.host].unanswered -= 1

    async def health(self) -> list[Health]:
        """What each host says of itself now; one that does not answer within five seconds is left out."""
        asked = (asyncio.wait_for(line.link.health(), 5.0) for line in self._lines.values())
        replies = await asyncio.gather(*asked, return_exceptions=True)
        return [reply for reply in replies if isinstance(reply, Health)]

    def statistics(self) -> BusStatistics:
        return BusStatistics(
            answered={host: line.answered for host, line in self._lines.items()},
            restarts=self._restarts,
            redelivered=self._redelivered,
            unanswered=len(self._pending),
            dead_letters=tuple(self._dead),
        )

    def _choose(self, ask: Ask) -> Line | None:
        able = [line for line in self._lines.values() if (ask.specialist, ask.tier) in line.serves]
        return able[0] if len(able) == 1 else min(able, key=lambda line: line.unanswered, default=None)

    def _post(self, line: Line, pending: Pending) -> None:
        pending.host = line.link.host
        line.unanswered += 1
        line.put(pending)

    async def _serve(self, line: Line) -> None:
        """Keep one host supplied and listened to, and replace it when it dies."""
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(line.send())
                    group.create_task(self._listen(line))
            except* Exception as lost:  # a link that fails in any other way is as good as lost
                cause = str(lost.exceptions[0]) or repr(lost.exceptions[0])
            if not await self._replace(line, cause):
                return

    async def _listen(self, line: Line) -> None:
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

    async def _replace(self, line: Line, cause: str) -> bool:
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

    def _orphans(self, line: Line) -> list[Pending]:
        """What a lost host has not answered, sent or not, in the order it was asked."""
        line.clear()
        return [p for p in self._pending.values() if p.host == line.link.host and not p.reply.done()]

    def _resend(self, line: Line, orphans: list[Pending], cause: str) -> None:
        for pending in sorted(orphans, key=lambda p: -p.deliveries):  # suspects first, while the host has nothing else
            if pending.deliveries >= self._max_deliveries:
                self._bury(pending, _died(pending, cause))
            else:
                self._redelivered += pending.deliveries > 0
                line.put(pending)

    def _move(self, orphans: list[Pending], cause: str) -> None:
        """Give a lost host's work to another that serves it, or end it."""
        for pending in orphans:
            other = self._choose(pending.ask)
            if other is None or pending.deliveries >= self._max_deliveries:
                self._bury(pending, _died(pending, cause))
            else:
                self._lines[pending.host].unanswered -= 1
                self._redelivered += pending.deliveries > 0
                self._post(other, pending)

    def _bury(self, pending: Pending, failed: Failed) -> None:
        envelope = Envelope(to=pending.host, sender="dispatcher", body=pending.ask, delivery=pending.deliveries)
        self._dead.append(DeadLetter(envelope, failed.detail))
        log.error("message.dead", attempt=failed.id, deliveries=pending.deliveries, cause=failed.detail)
        pending.reply.set_result(failed)


def _died(pending: Pending, cause: str) -> Failed:
    return Failed(id=pending.ask.id, reason="host_died", detail=cause, unknown=pending.deliveries > 0)


def _after_the_end(ask: Ask) -> Failed:
    return Failed(id=ask.id, reason="cancelled", detail="the swarm was closed")


async def _end(link: Link) -> None:
    try:
        await link.close()
    except Exception as e:
        log.warning("host.not_closed", host=link.host, cause=str(e))
