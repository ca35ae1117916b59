"""What a host answers: failures for what was raised, and what a wire can carry."""

from __future__ import annotations

from typing import NamedTuple

import structlog

from protocols import codec
from protocols.answers import Answer, Ask, Failed
from protocols.envelope import Envelope
from swarm.errors import EngineClosed, EngineCrashed, OutOfTime, PromptTooLong, RemoteError, SchemaUnsupported
from swarm.observe.secrets import cleaned

log = structlog.get_logger(__name__)

LARGEST_ANSWER = 1024 * 1024  # bytes on the wire


class Parcel(NamedTuple):
    """An answer on its way out."""

    reply: Answer | Failed
    envelope: Envelope
    n_bytes: int  # on the wire


def packed(reply: Answer | Failed) -> Parcel:
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
    return packed(Failed(id=reply.id, reason="invalid_output", detail=detail, usage=reply.usage, host=reply.host))


def failure(ask: Ask, error: Exception, unknown: bool) -> Failed:
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
            return Failed(id=ask.id, reason="unavailable", detail=str(error), retryable=error.retryable,
                          unknown=error.unknown, retry_ms=error.retry_ms)  # fmt: skip
        case _:
            log.exception("ask.raised", task_id=ask.task, step=ask.step, tier=ask.tier)
            detail = cleaned(f"{type(error).__name__}: {error}")[:500]
            return Failed(id=ask.id, reason="error", detail=detail, unknown=unknown)
