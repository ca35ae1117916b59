"""What a tier said to an ask that cost something, though it was not accepted then: asked the same, it says the same.

An accepted answer ends its step and is found by the step's input (`kept`). Where none was accepted, the same input
would be asked of all tiers again; with what they said remembered, the same is decided again for nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import msgspec

from protocols.answers import Answer, Ask, Failed, Usage
from swarm.dispatch.cache.key import normal
from swarm.state.records import Record, Records

KIND = "answer"
MARK = "~"  # begins the key of what was said, after its step
SAME_AGAIN = ("invalid_output", "too_long", "declined")  # failures that the input brought about

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(Answer | Failed).decode


class Said:
    """Of one swarm and tenant. Raises `StoreError`."""

    def __init__(self, records: Records, scope: str, now: Callable[[], float] = time.time) -> None:
        self._records = records
        self._scope = scope
        self._now = now

    async def find(self, ask: Ask, identity: str) -> Answer | Failed | None:
        """The reply as it was, as the reply to this ask; it has used nothing now."""
        record = await self._records.get(KIND, self._scope, _key(ask, identity))
        if record is None:
            return None
        try:
            reply: Answer | Failed = _decode(record.body)
        except msgspec.DecodeError:
            return None  # of another program's making
        return msgspec.structs.replace(reply, id=ask.id, usage=Usage(), host="")

    async def keep(self, ask: Ask, identity: str, reply: Answer | Failed, ttl_s: float | None = None) -> None:
        """What cost nothing is not worth keeping, and what failed by chance is not to be repeated."""
        usage = reply.usage
        if not (usage.tokens_in or usage.tokens_out or usage.micro_usd):
            return
        if isinstance(reply, Failed) and (reply.retryable or reply.unknown or reply.reason not in SAME_AGAIN):
            return
        now = self._now()
        expires = None if ttl_s is None else now + ttl_s
        name = _key(ask, identity)
        await self._records.put(
            [Record(kind=KIND, scope=self._scope, key=name, body=_encode(reply), at=now, expires=expires)]
        )


def _key(ask: Ask, identity: str) -> str:
    """By all that the host sees of it, but for who asks and how long he can wait."""
    plain = msgspec.structs.replace(ask, id="", task="", left_ms=None)
    content = _encode([identity, normal(msgspec.to_builtins(plain))])
    return f"{ask.step}/{MARK}{hashlib.blake2b(content, digest_size=20).hexdigest()}"
