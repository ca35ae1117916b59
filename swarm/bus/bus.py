"""Asks go out in batches, answers come back, and a host's death loses nothing.

Delivery is at least once; an answer counts once, by the id of its ask. A host that dies is replaced. What it had not
answered goes to others at once; an ask that may have killed it waits for the fresh host, to be sent alone. An ask that
has been delivered `max_deliveries` times goes to the dead letters instead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

import msgspec
import structlog

from protocols.answers import Answer, Ask, Failed
from protocols.control import Health
from protocols.ids import HostId
from swarm.bus.asks import Asks, Keep
from swarm.bus.base import Link
from swarm.bus.desk import Desks, after_the_end
from swarm.bus.letters import BusStatistics, DeadLetter
from swarm.bus.line import Line, Serves
from swarm.bus.pending import raised
from swarm.bus.roster import Roster

__all__ = ["Bus", "BusStatistics", "DeadLetter"]

log = structlog.get_logger(__name__)

TICK_S = 1.0  # between two looks at what is overdue, and at who is slow
REST_S = 15.0  # before a host that was given up is tried again

Revive = Callable[[HostId], Awaitable[Link]]


class Bus:
    """Sends asks to the least busy host that serves them. Use as an async context manager.

    `revive(host)` must return a link to a fresh host of that name. A host that dies for the fourth time within a minute
    is given up: what waited for it goes to another that serves it, or comes back as `Failed(reason="host_died")`. It is
    tried again once its deaths are a minute ago. `room`: the most asks of one kind that may wait for one host; more of
    them come back as `Failed(reason="overloaded")`. `keep` gets every dead letter.
    """

    def __init__(
        self,
        hosts: Iterable[tuple[Link, Serves]],
        revive: Revive,
        *,
        max_deliveries: int = 3,
        room: int | None = None,
        keep: Keep | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._roster = Roster(clock)
        self._asks = Asks(self._roster, max_deliveries, keep, clock)
        for link, serves in hosts:
            self._roster.add(Line(link, serves, self._asks.bury, clock, max_deliveries))
        self._desks = Desks()
        self._working: list[asyncio.Task[None]] = []
        self._revive = revive
        self._max_deliveries = max_deliveries
        self._room = room
        self._clock = clock
        self._restarts = 0
        self._refused = 0
        self._closed = False

    async def __aenter__(self) -> Bus:
        for line in self._roster:
            self._working.append(asyncio.create_task(self._serve(line), name=f"bus-{line.link.host}"))
        self._working.append(asyncio.create_task(self._watch(), name="bus-watch"))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        self._asks.end_all(after_the_end)
        for task in self._working:
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)
        await self._desks.close()
        for line in self._roster:
            await _end(line.link)

    async def ask(self, ask: Ask) -> Answer | Failed:
        """Send `ask` and wait for what becomes of it. Cancelling the wait cancels the work at the host.

        What raises at a host is asked `max_deliveries` times in all, where it may be repeated and has cost nothing.
        """
        due = None if ask.left_ms is None else self._clock() + ask.left_ms / 1000
        for _ in range(self._max_deliveries):
            reply = await self._reply(ask)
            if not _may_go_well(ask, reply):
                return reply
            if due is not None:
                ask = msgspec.structs.replace(ask, left_ms=max(0, int((due - self._clock()) * 1000)))
        assert isinstance(reply, Failed)
        self._asks.give_up(ask, reply)
        return reply

    async def _reply(self, ask: Ask) -> Answer | Failed:
        if self._closed:
            return after_the_end(ask)
        line = self._roster.choose(ask)
        if line is None:
            detail = f"no host serves tier {ask.tier!r} of {ask.specialist!r}"
            return Failed(id=ask.id, reason="unavailable", detail=detail)
        if self._room is not None and line.waiting[ask.specialist, ask.tier] >= self._room:
            return self._refusal(ask, line)
        if (reply := await self._desks.answer(line, ask)) is not None:
            return reply
        return after_the_end(ask) if self._closed else await self._asks.send(ask, line)

    async def health(self) -> list[Health]:
        """What each host says of itself now; one that does not answer within five seconds is left out."""
        asked = (asyncio.wait_for(line.link.health(), 5.0) for line in self._roster)
        replies = await asyncio.gather(*asked, return_exceptions=True)
        return [reply for reply in replies if isinstance(reply, Health)]

    def statistics(self) -> BusStatistics:
        return BusStatistics(
            answered={line.link.host: line.answered for line in self._roster},
            restarts=self._restarts,
            redelivered=self._asks.redelivered,
            unanswered=sum(line.unanswered for line in self._roster),
            dead_letters=tuple(self._asks.dead),
            overdue=self._asks.overdue,
            refused=self._refused,
            hosts={line.link.host: line.state for line in self._roster},
        )

    def look(self) -> None:
        """End what is overdue, and spare the hosts that are slow. Done once a second."""
        self._asks.end_overdue()
        for line in self._roster.look():
            self._asks.spare(line)

    def _refusal(self, ask: Ask, line: Line) -> Failed:
        self._refused += 1
        kind = ask.specialist, ask.tier
        after = line.retry_ms(kind)
        waiting = (
            f"{line.waiting[kind]:,} asks of {ask.specialist!r} wait for tier {ask.tier!r} of host {line.link.host!r}"
        )
        detail = f"{waiting}; come back in {after:,} ms"
        return Failed(id=ask.id, reason="overloaded", detail=detail, retryable=True, retry_ms=after)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.look()

    async def _serve(self, line: Line) -> None:
        """Keep one host supplied and listened to, and replace it when it dies."""
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(line.send())
                    group.create_task(self._listen(line))
            except* Exception as lost:  # a link that fails in any other way is as good as lost
                cause = str(lost.exceptions[0]) or repr(lost.exceptions[0])
            try:
                await self._replace(line, cause)
            except Exception as e:  # a fault of ours: nobody is to wait for this host
                line.state = "given_up"
                self._asks.hand_over(line, f"it could not be replaced: {type(e).__name__}: {e}")
                raise

    async def _listen(self, line: Line) -> None:
        while True:
            for envelope in await line.link.collect():
                if isinstance(envelope.body, Answer | Failed):
                    self._asks.answered(line, envelope.body)
                else:
                    self._asks.refuse(envelope, "the dispatcher takes answers only")

    async def _replace(self, line: Line, cause: str) -> None:
        """A fresh host in place of a dead one, with what is left of its work; sooner or later."""
        line.state = "starting"
        line.deaths.append(self._clock())
        log.warning("host.lost", host=line.link.host, cause=cause, unanswered=line.unanswered, deaths=len(line.deaths))
        await _end(line.link)
        self._asks.share_out(line, cause)
        while (problem := await self._revived(line, cause)) is not None:
            if line.state != "given_up":
                log.error("host.given_up", host=line.link.host, cause=problem, again_s=REST_S)
            line.state = "given_up"
            self._asks.hand_over(line, problem)
            await asyncio.sleep(REST_S)
        line.state = "up"
        line.paces.clear()
        self._restarts += 1
        self._asks.resend(line)

    async def _revived(self, line: Line, cause: str) -> str | None:
        """Replace a dead host; or say why not."""
        host = line.link.host
        if not line.may_start:
            return f"host {host!r} died {len(line.deaths)} times within a minute: {cause}"
        try:
            line.link = await self._revive(host)
        except Exception as e:
            return str(e) or repr(e)
        return None


def _may_go_well(ask: Ask, reply: Answer | Failed) -> bool:
    """Whether `ask` raised at a host, may be repeated, and has cost nothing yet."""
    if not raised(reply) or ask.once or not reply.host:
        return False
    used = reply.usage
    return not (reply.unknown or used.micro_usd or used.tokens_in or used.tokens_out)


async def _end(link: Link) -> None:
    try:
        await link.close()
    except Exception as e:
        log.warning("host.not_closed", host=link.host, cause=str(e))
