"""One host as the bus sees it: its link, its state, what waits to be sent to it, and the sending."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from protocols.answers import Failed
from protocols.control import Cancel, Overloaded
from protocols.envelope import Envelope
from swarm.bus.base import HostLost, Link
from swarm.bus.letters import HostState
from swarm.bus.local import Desk, LocalLink
from swarm.bus.outbox import Outbox
from swarm.bus.pace import Kind, Pace
from swarm.bus.pending import Pending

BATCH = 64  # most messages in one call
DEATHS, WITHIN_S = 3, 60.0  # a host that dies more often than that is not replaced at once
ALONE_S = 30.0  # an ask that has not killed its host by then is not what does
LEAST_RETRY_MS, MOST_RETRY_MS = 50, 60_000
Serves = frozenset[Kind]  # the (specialist, tier) pairs that a host answers


@dataclass(slots=True)
class Line:
    """`give_up(pending, failed)` is called for an ask that cannot be sent at all.

    An ask that has outlived all its hosts but one delivery may be what kills them. It is sent alone and waited for, so
    that the others, which were only near it, do not share its end. `unanswered`: asks it has not answered, `waiting`
    those of each kind, but for asks answered in this process. `slow_until`: it is spared until then.
    """

    link: Link
    serves: Serves
    give_up: Callable[[Pending, Failed], None]
    clock: Callable[[], float]
    max_deliveries: int
    state: HostState = "up"
    slow_until: float = 0.0
    unanswered: int = 0
    answered: int = 0
    waiting: Counter[Kind] = field(default_factory=Counter)
    deaths: list[float] = field(default_factory=list)
    paces: dict[Kind, Pace] = field(default_factory=dict)
    outbox: Outbox = field(init=False)

    def __post_init__(self) -> None:
        self.outbox = Outbox(self._is_suspect)

    @property
    def desk(self) -> Desk | None:
        """Where the host may be asked without a message."""
        return self.link.desk if isinstance(self.link, LocalLink) else None

    @property
    def is_up(self) -> bool:
        return self.state in ("up", "slow")

    @property
    def may_start(self) -> bool:
        """Whether it has died no more often of late than a host may."""
        self.deaths = [t for t in self.deaths if self.clock() - t < WITHIN_S]
        return len(self.deaths) <= DEATHS

    def retry_ms(self, kind: Kind) -> int:
        """About when half of what waits here now will have been answered."""
        pace = self.paces.get(kind)
        mean_s = pace.seconds / pace.answers if pace else 1.0
        return min(MOST_RETRY_MS, max(LEAST_RETRY_MS, int(mean_s * 500)))

    def take(self, pending: Pending) -> None:
        """This host is to answer it."""
        pending.host, pending.since = self.link.host, self.clock()
        self.unanswered += 1
        self.waiting[pending.kind] += 1
        self.outbox.put(pending)

    def let_go(self, pending: Pending) -> None:
        """It is over, or another host's now."""
        self.unanswered -= 1
        self.waiting[pending.kind] -= 1

    def took(self, pending: Pending) -> None:
        """The host has answered."""
        self.answered += 1
        if (pace := self.paces.get(pending.kind)) is None:
            pace = self.paces[pending.kind] = Pace()
        pace.took(self.clock() - pending.since)

    async def send(self) -> None:
        """Send what waits, for ever. Raises `HostLost`, and whatever else the link raises for all that it is given."""
        while True:
            batch = await self.outbox.next(BATCH)
            asks = [item for item in batch if isinstance(item, Pending)]
            for pending in asks:
                pending.deliveries += 1
            if refused := await self._deliver(batch):
                self._put_back(asks, refused)
            for pending in asks:
                if pending.deliveries == self.max_deliveries > 1:
                    await asyncio.wait({pending.reply}, timeout=ALONE_S)

    def _is_suspect(self, pending: Pending) -> bool:
        return 0 < pending.deliveries == self.max_deliveries - 1

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

    def _put_back(self, asks: list[Pending], refusals: list[Overloaded]) -> None:
        ids = {refusal.id for refusal in refusals}
        refused = [pending for pending in asks if pending.ask.id in ids]
        for pending in refused:
            pending.deliveries -= 1  # it was not taken, so it was not delivered
        self.outbox.put_back(refused, max(refusal.retry_ms for refusal in refusals) / 1000)
