"""A host: one engine per model, any number of specialists on it, one bounded mailbox.

The same class runs in this process and inside a Ray actor. Every accepted ask is answered exactly once, by an `Answer`
or a `Failed`; an ask delivered twice is worked on once.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from protocols import codec
from protocols.answers import Answer, Ask, Failed
from protocols.control import Cancel, Health, HostSpec, Overloaded, Ready
from protocols.envelope import Envelope
from protocols.ids import AttemptId
from swarm.errors import EngineClosed, EngineCrashed, OutOfTime, PromptTooLong, RemoteError, SchemaUnsupported
from swarm.runtime.workshop import Workshop

log = structlog.get_logger(__name__)

REMEMBERED = 4096  # answers kept for an ask that is delivered again
LARGEST_ANSWER = 1024 * 1024  # bytes on the wire
COLLECTED = codec.MAX_BATCH_BYTES // 2  # most bytes of answers in one batch
COLLECT_WAIT_S = 5.0  # how long `collect` waits before it returns nothing


class Parcel(NamedTuple):
    """An answer on its way out."""

    reply: Answer | Failed
    envelope: Envelope
    n_bytes: int  # on the wire


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
        self._active: dict[AttemptId, _Work] = {}
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
        if len(self._active) >= self.spec.mailbox:
            return Overloaded(id=ask.id, host=self.spec.host)
        self._active[ask.id] = work = _Work(ask, time.monotonic())
        try:
            with structlog.contextvars.bound_contextvars(task_id=ask.task, step=ask.step, tier=ask.tier):
                reply = await self._answer(ask)
        finally:
            del self._active[ask.id]
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
        if len(self._active) >= self.spec.mailbox:
            return Overloaded(id=ask.id, host=self.spec.host)
        self._active[ask.id] = work = _Work(ask, time.monotonic())
        work.task = asyncio.create_task(self._do(work))
        return None

    async def _do(self, work: _Work) -> None:
        work.begun, ask = True, work.ask
        structlog.contextvars.bind_contextvars(task_id=ask.task, step=ask.step, tier=ask.tier)  # of this asyncio task
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
            return _failure(ask, e, unknown=self._is_paid(ask))

    def _done(self, work: _Work, reply: Answer | Failed) -> None:
        """Send what came of an ask."""
        del self._active[work.ask.id]
        parcel = self._finished(work, reply)
        self._remember(work.ask.id, parcel)
        self._send(parcel)

    def _finished(self, work: _Work, reply: Answer | Failed) -> Parcel:
        """`reply` with what the host knows about it."""
        usage = msgspec.structs.replace(reply.usage, ms=int((time.monotonic() - work.started) * 1000))
        self._count += 1
        return _packed(msgspec.structs.replace(reply, usage=usage, host=self.spec.host))

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


def _stir(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _packed(reply: Answer | Failed) -> Parcel:
    """`reply`, or the failure of one that no wire can carry: output that is not JSON, or too much of it."""
    envelope = Envelope(to="dispatcher", sender=reply.host, body=reply)
    try:
        size = len(codec.encode([envelope]))
        if size <= LARGEST_ANSWER:
            return Parcel(reply, envelope, size)
        problem = f"it has {size:,} bytes, at most {LARGEST_ANSWER:,} are sent"
    except codec.WireError as e:
        problem = str(e)[:400]
    detail = f"the answer cannot be sent: {problem}"
    return _packed(Failed(id=reply.id, reason="invalid_output", detail=detail, usage=reply.usage, host=reply.host))


def _resident_bytes() -> int:
    """Memory of this process now; where the system does not say, its largest so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()


def _failure(ask: Ask, error: Exception, unknown: bool) -> Failed:
    """An exception of a specialist or engine as the value that the dispatcher understands."""
    match error:
        case PromptTooLong():
            return Failed(id=ask.id, reason="too_long", detail=str(error))
        case SchemaUnsupported():
            return Failed(id=ask.id, reason="invalid_output", detail=str(error))
        case OutOfTime():
            return Failed(id=ask.id, reason="timeout", detail=str(error))
        case EngineClosed() | EngineCrashed():
            return Failed(id=ask.id, reason="unavailable", detail=str(error), retryable=True)
        case RemoteError():
            return Failed(
                id=ask.id, reason="unavailable", detail=str(error), retryable=error.retryable, unknown=error.unknown
            )
        case _:
            log.exception("ask.raised", task_id=ask.task, step=ask.step, tier=ask.tier)
            detail = f"{type(error).__name__}: {error}"[:500]
            return Failed(id=ask.id, reason="error", detail=detail, unknown=unknown)
