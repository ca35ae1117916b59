"""The asks that are under way, and what becomes of those that a host does not answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from protocols.answers import Answer, Ask, Failed, Reason
from protocols.envelope import Envelope
from protocols.ids import AttemptId
from swarm.bus.letters import DeadLetter
from swarm.bus.line import Line
from swarm.bus.pending import Pending
from swarm.bus.roster import Roster

log = structlog.get_logger(__name__)

GRACE_S = 2.0  # a host has after an ask's time is up, to say so itself
REMEMBERED = 1000  # dead letters

Keep = Callable[[DeadLetter], None]


class Asks:
    """Each has one line at a time. `keep` gets every dead letter."""

    def __init__(self, roster: Roster, max_deliveries: int, keep: Keep | None, clock: Callable[[], float]) -> None:
        self.dead: deque[DeadLetter] = deque(maxlen=REMEMBERED)
        self.redelivered = 0
        self.overdue = 0
        self._roster = roster
        self._max_deliveries = max_deliveries
        self._keep = keep
        self._clock = clock
        self._pending: dict[AttemptId, Pending] = {}

    async def send(self, ask: Ask, line: Line) -> Answer | Failed:
        """Send `ask` on this line and wait for what becomes of it. Cancelling the wait cancels the work."""
        due = None if ask.left_ms is None else self._clock() + ask.left_ms / 1000
        pending = Pending(ask, asyncio.get_running_loop().create_future(), due, line.link.host)
        self._pending[ask.id] = pending
        line.take(pending)
        try:
            return await pending.reply
        except asyncio.CancelledError:
            self._roster[pending.host].outbox.cancel(ask.id)
            raise
        finally:
            del self._pending[ask.id]
            self._roster[pending.host].let_go(pending)

    def answered(self, line: Line, body: Answer | Failed) -> None:
        """`line` has brought this. An ask that was cancelled, or answered by the host thought dead, is over already."""
        pending = self._pending.get(body.id)
        if pending is None or pending.reply.done():
            return
        line.took(pending)
        pending.reply.set_result(body)

    def end_all(self, end: Callable[[Ask], Failed]) -> None:
        for pending in self._pending.values():
            if not pending.reply.done():
                pending.reply.set_result(end(pending.ask))

    def end_overdue(self) -> None:
        """End what a host should have ended for want of time, and tell it."""
        latest = self._clock() - GRACE_S
        late = [p for p in self._pending.values() if p.due is not None and p.due < latest and not p.reply.done()]
        for pending in late:
            if pending.deliveries:
                self._roster[pending.host].outbox.cancel(pending.ask.id)
            self.overdue += 1
            detail = f"host {pending.host!r} did not end it within {GRACE_S:g} s after its time was up"
            pending.reply.set_result(_failed(pending, "timeout", detail))
            log.warning("message.overdue", attempt=pending.ask.id, host=pending.host, deliveries=pending.deliveries)

    def orphans(self, line: Line) -> list[Pending]:
        """What a lost host has not answered, sent or not, in the order it was asked."""
        line.outbox.clear()
        return [p for p in self._pending.values() if p.host == line.link.host and not p.reply.done()]

    def resend(self, line: Line) -> None:
        """Give a fresh host what the lost one of its name has left."""
        waiting = self.orphans(line)
        for pending in sorted(waiting, key=lambda p: -p.deliveries):  # suspects first, while the host has nothing else
            self.redelivered += pending.deliveries > 0
            line.outbox.put(pending)

    def share_out(self, line: Line, cause: str) -> None:
        """Give a lost host's work to others that are up, but for what may have killed it."""
        for pending in self.orphans(line):
            if self._is_spent(pending):
                self.bury(pending, _failed(pending, "host_died", cause))
            elif pending.deliveries < self._max_deliveries - 1 and self._roster.others(pending.ask, line):
                self._move(pending)
            else:
                line.outbox.put(pending)

    def hand_over(self, line: Line, cause: str) -> None:
        """Give all work of a host that was given up to others that serve it, or end it."""
        for pending in self.orphans(line):
            if self._roster.choose(pending.ask) is None:
                self.bury(pending, _failed(pending, "host_died", cause))
            else:
                self._move(pending)

    def spare(self, line: Line) -> None:
        """Give to others what was not sent to this slow host yet."""
        for pending in line.outbox.unsent():
            if self._roster.others(pending.ask, line):
                self._move(pending)
            else:
                line.outbox.put(pending)

    def bury(self, pending: Pending, failed: Failed) -> None:
        envelope = Envelope(to=pending.host, sender="dispatcher", body=pending.ask, delivery=pending.deliveries)
        pending.reply.set_result(failed)
        self.refuse(envelope, failed.detail)
        log.error("message.dead", attempt=failed.id, deliveries=pending.deliveries, cause=failed.detail)

    def give_up(self, ask: Ask, failed: Failed) -> None:
        """An ask that raised as often as it may. `failed`: what its caller is told."""
        log.error("message.dead", attempt=ask.id, deliveries=self._max_deliveries, cause=failed.detail)
        self.refuse(
            Envelope(to=failed.host, sender="dispatcher", body=ask, delivery=self._max_deliveries), failed.detail
        )

    def refuse(self, envelope: Envelope, cause: str) -> None:
        """A message that nobody can do anything with."""
        letter = DeadLetter(envelope, cause)
        self.dead.append(letter)
        if self._keep is None:
            return
        try:
            self._keep(letter)
        except Exception as e:  # it is in the log at least; whoever waits for an answer is not to suffer
            log.error("dead_letter.not_kept", cause=f"{type(e).__name__}: {e}", letter=cause)

    def _move(self, pending: Pending) -> None:
        other = self._roster.choose(pending.ask)
        assert other is not None
        self._roster[pending.host].let_go(pending)
        self.redelivered += pending.deliveries > 0
        other.take(pending)

    def _is_spent(self, pending: Pending) -> bool:
        """Whether it must not be delivered again."""
        return pending.deliveries >= (1 if pending.ask.once else self._max_deliveries)


def _failed(pending: Pending, reason: Reason, cause: str) -> Failed:
    """Something may have been spent where it was delivered."""
    return Failed(id=pending.ask.id, reason=reason, detail=cause, unknown=pending.deliveries > 0)
