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
from functools import partial
from pathlib import Path

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


class Host:
    """Takes asks, answers them. Lives on one event loop."""

    def __init__(self, spec: HostSpec, workshop: Workshop, node: str) -> None:
        self.spec = spec
        self._workshop = workshop
        self._node = node
        self._active: dict[AttemptId, asyncio.Task[Answer | Failed]] = {}
        self._answered: OrderedDict[AttemptId, Answer | Failed] = OrderedDict()
        self._outbox: deque[tuple[Envelope, int]] = deque()  # with their sizes in bytes
        self._filled = asyncio.Event()
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
                    if task := self._active.get(id):
                        task.cancel()
                case other:
                    log.warning("message.unexpected", host=self.spec.host, kind=type(other).__name__)
        return refused

    async def collect(self) -> list[Envelope]:
        """The answers that are ready, waiting for the first of them for at most `COLLECT_WAIT_S`."""
        if not self._outbox:
            self._filled.clear()
            try:
                await asyncio.wait_for(self._filled.wait(), COLLECT_WAIT_S)
            except TimeoutError:
                return []
        ready: list[Envelope] = []
        size = 0
        while self._outbox and size < COLLECTED:
            envelope, n_bytes = self._outbox.popleft()
            ready.append(envelope)
            size += n_bytes
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
        for task in self._active.values():
            task.cancel()
        self._workshop.close()

    def _take(self, ask: Ask) -> Overloaded | None:
        if ask.id in self._active:
            return None
        if known := self._answered.get(ask.id):
            self._send(known)
            return None
        if len(self._active) >= self.spec.mailbox:
            return Overloaded(id=ask.id, host=self.spec.host)
        self._active[ask.id] = asyncio.create_task(self._answer(ask))
        self._active[ask.id].add_done_callback(partial(self._done, ask, time.monotonic()))
        return None

    async def _answer(self, ask: Ask) -> Answer | Failed:
        try:
            async with asyncio.timeout(None if ask.left_ms is None else ask.left_ms / 1000):
                with structlog.contextvars.bound_contextvars(task_id=ask.task, step=ask.step, tier=ask.tier):
                    return await self._workshop.answer(ask)
        except TimeoutError:
            detail = f"no time left after {ask.left_ms} ms"
            return Failed(id=ask.id, reason="timeout", detail=detail, unknown=self._is_paid(ask))
        except Exception as e:
            return _failure(ask, e, unknown=self._is_paid(ask))

    def _done(self, ask: Ask, started: float, work: asyncio.Task[Answer | Failed]) -> None:
        """Send what came of an ask, also of one that was cancelled before its work began."""
        del self._active[ask.id]
        reply = Failed(id=ask.id, reason="cancelled") if work.cancelled() else work.result()
        usage = msgspec.structs.replace(reply.usage, ms=int((time.monotonic() - started) * 1000))
        self._count += 1
        done = _sendable(msgspec.structs.replace(reply, usage=usage, host=self.spec.host))
        self._remember(done)
        self._send(done)

    def _is_paid(self, ask: Ask) -> bool:
        """Whether this tier may have been billed for work that nobody saw the end of."""
        model = self.spec.models.get(ask.tier)
        return model is not None and model.kind == "remote"

    def _remember(self, reply: Answer | Failed) -> None:
        self._answered[reply.id] = reply
        if len(self._answered) > REMEMBERED:
            self._answered.popitem(last=False)

    def _send(self, reply: Answer | Failed) -> None:
        envelope = Envelope(to="dispatcher", sender=self.spec.host, body=reply)
        self._outbox.append((envelope, len(codec.encode([envelope]))))
        self._filled.set()


def _sendable(reply: Answer | Failed) -> Answer | Failed:
    """`reply`, or the failure of one that no wire can carry: output that is not JSON, or too much of it."""
    try:
        size = len(codec.encode([Envelope(to="dispatcher", sender=reply.host, body=reply)]))
        problem = f"it has {size:,} bytes, at most {LARGEST_ANSWER:,} are sent" if size > LARGEST_ANSWER else None
    except codec.WireError as e:
        problem = str(e)[:400]
    if problem is None:
        return reply
    detail = f"the answer cannot be sent: {problem}"
    return Failed(id=reply.id, reason="invalid_output", detail=detail, usage=reply.usage, host=reply.host)


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
