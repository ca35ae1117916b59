"""A host: one engine per model, any number of specialists on it, one bounded mailbox.

The same class runs in this process and inside a Ray actor. Every accepted ask is answered exactly once, by an `Answer`
or a `Failed`; an ask delivered twice is worked on once.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from protocols import codec
from protocols.answers import Answer, Ask, Failed
from protocols.control import Cancel, Health, HostSpec, Overloaded, Ready
from protocols.envelope import Envelope
from protocols.ids import AttemptId
from swarm.bus.pending import raised
from swarm.observe.log import STEP, TASK_ID, TIER
from swarm.observe.secrets import cleaned
from swarm.runtime.replies import Parcel, failure, packed
from swarm.runtime.workshop import Workshop

log = structlog.get_logger(__name__)

REMEMBERED = 4096  # answers kept for an ask that is delivered again
COLLECTED = codec.MAX_BATCH_BYTES // 2  # most bytes of answers in one batch
RESERVED = 4  # a share of one in so many places is kept from each kind of ask, for the others
COLLECT_WAIT_S = 1.0  # how long `collect` waits before it returns nothing; its callers count silence


@dataclass(slots=True)
class _Work:
    """An ask that was taken. `started` is on the monotonic clock."""

    ask: Ask
    started: float
    task: asyncio.Task[None] | None = None  # None: it is done in its caller's
    begun: bool = False


class Host:
    """Takes asks, answers them. Lives on one event loop."""

    def __init__(self, spec: HostSpec, workshop: Workshop, node: str) -> None:
        self.spec = spec
        self._workshop = workshop
        self._node = node
        self._kinds = sum(len(tiers) for tiers in spec.tiers.values())
        self._active: dict[AttemptId, _Work] = {}
        self._busy: Counter[tuple[str, str]] = Counter()  # of what runs, by kind
        self._answered: OrderedDict[AttemptId, Parcel] = OrderedDict()
        self._outbox: deque[Parcel] = deque()
        self._collecting: asyncio.Future[None] | None = None
        self._count = 0

    @property
    def ready(self) -> Ready:
        """What the dispatcher needs to know once the models are loaded."""
        return Ready(
            host=self.spec.host,
            node=self._node,
            pid=os.getpid(),
            calibrations=self._workshop.calibrations,
            models=self._workshop.model_hashes,
        )

    def deliver(self, batch: Sequence[Envelope]) -> list[Overloaded]:
        """Start work on each ask in `batch`; those beyond the mailbox's bound are refused."""
        refused = []
        for envelope in batch:
            match envelope.body:
                case Ask() as ask:
                    if refusal := self._take(ask):
                        refused.append(refusal)
                case Cancel(id=id):
                    self._cancel(id)
                case other:
                    log.warning("message.unexpected", host=self.spec.host, kind=type(other).__name__)
        return refused

    async def answer(self, ask: Ask) -> Answer | Failed | Overloaded:
        """What becomes of `ask`, worked on in the caller's own asyncio task. Cancelling the caller cancels the work.

        For callers in this process: it takes a place in the mailbox like any other, and costs no message.
        """
        if self._is_full(ask):
            return Overloaded(id=ask.id, host=self.spec.host)
        work = self._begin(ask)
        task, step, tier = TASK_ID.set(ask.task), STEP.set(ask.step), TIER.set(ask.tier)
        try:
            reply = await self._answer(ask)
        finally:
            TASK_ID.reset(task)
            STEP.reset(step)
            TIER.reset(tier)
            self._over(ask)
        return self._finished(work, reply).reply

    async def collect(self) -> list[Envelope]:
        """The answers that are ready, waiting for the first of them for at most `COLLECT_WAIT_S`."""
        if not self._outbox:
            await self._until_filled()
        ready: list[Envelope] = []
        size = 0
        while self._outbox and size < COLLECTED:
            parcel = self._outbox.popleft()
            ready.append(parcel.envelope)
            size += parcel.n_bytes
        return ready

    def health(self) -> Health:
        return Health(
            host=self.spec.host,
            waiting=len(self._outbox),
            running=len(self._active),
            answered=self._count,
            rss_bytes=_resident_bytes(),
        )

    def close(self) -> None:
        """Cancel what runs and free the models."""
        for id in list(self._active):
            self._cancel(id)
        self._workshop.close()

    def _take(self, ask: Ask) -> Overloaded | None:
        if ask.id in self._active:
            return None
        if (known := self._answered.get(ask.id)) is not None:
            self._send(known)
            return None
        if self._is_full(ask):
            return Overloaded(id=ask.id, host=self.spec.host)
        work = self._begin(ask)
        work.task = asyncio.create_task(self._do(work))
        return None

    def _is_full(self, ask: Ask) -> bool:
        """Where several kinds are answered, none fills the mailbox alone: one that is slow stops no other."""
        most = self.spec.mailbox
        return len(self._active) >= most or (self._kinds > 1 and self._busy[_kind(ask)] >= most - most // RESERVED)

    def _begin(self, ask: Ask) -> _Work:
        self._active[ask.id] = work = _Work(ask, time.monotonic())
        self._busy[_kind(ask)] += 1
        return work

    def _over(self, ask: Ask) -> None:
        del self._active[ask.id]
        self._busy[_kind(ask)] -= 1

    async def _do(self, work: _Work) -> None:
        work.begun, ask = True, work.ask
        TASK_ID.set(ask.task)  # of this asyncio task
        STEP.set(ask.step)
        TIER.set(ask.tier)
        try:
            reply = await self._answer(ask)
        except asyncio.CancelledError:
            reply = Failed(id=ask.id, reason="cancelled")
        self._done(work, reply)

    def _cancel(self, id: AttemptId) -> None:
        work = self._active.get(id)
        if work is None or work.task is None:
            return  # over, or in the hands of its caller
        work.task.cancel()
        if not work.begun:  # it never will, so nobody else can say what became of it
            self._done(work, Failed(id=id, reason="cancelled"))

    async def _answer(self, ask: Ask) -> Answer | Failed:
        try:
            if ask.left_ms is None:
                return await self._workshop.answer(ask)
            async with asyncio.timeout(ask.left_ms / 1000):
                return await self._workshop.answer(ask)
        except TimeoutError:
            detail = f"no time left after {ask.left_ms} ms"
            return Failed(id=ask.id, reason="timeout", detail=detail, unknown=self._is_paid(ask))
        except Exception as e:
            return failure(ask, e, unknown=self._is_paid(ask))

    def _done(self, work: _Work, reply: Answer | Failed) -> None:
        """Send what came of an ask."""
        self._over(work.ask)
        parcel = self._finished(work, reply)
        if not raised(reply):
            self._remember(work.ask.id, parcel)
        self._send(parcel)

    def _finished(self, work: _Work, reply: Answer | Failed) -> Parcel:
        """`reply` with what the host knows about it."""
        usage = msgspec.structs.replace(reply.usage, ms=int((time.monotonic() - work.started) * 1000))
        if isinstance(reply, Failed) and reply.detail:  # it goes into journal, receipt and logs
            reply = msgspec.structs.replace(reply, detail=cleaned(reply.detail))
        self._count += 1
        return packed(msgspec.structs.replace(reply, usage=usage, host=self.spec.host))

    def _is_paid(self, ask: Ask) -> bool:
        """Whether this tier may have been billed for work that nobody saw the end of."""
        model = self.spec.models.get(ask.tier)
        return model is not None and model.kind == "remote"

    def _remember(self, id: AttemptId, parcel: Parcel) -> None:
        self._answered[id] = parcel
        if len(self._answered) > REMEMBERED:
            self._answered.popitem(last=False)

    def _send(self, parcel: Parcel) -> None:
        self._outbox.append(parcel)
        if self._collecting is not None:
            _stir(self._collecting)

    async def _until_filled(self) -> None:
        """Until there is an answer to collect, or for `COLLECT_WAIT_S`."""
        loop = asyncio.get_running_loop()
        self._collecting = filled = loop.create_future()
        alarm = loop.call_later(COLLECT_WAIT_S, _stir, filled)
        try:
            await filled
        finally:
            alarm.cancel()


def _kind(ask: Ask) -> tuple[str, str]:
    return ask.specialist, ask.tier


def _stir(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _resident_bytes() -> int:
    """Memory of this process now; where the system does not say, its largest so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()
