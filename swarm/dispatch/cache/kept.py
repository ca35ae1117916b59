"""An accepted answer as a cache keeps it, with where it came from and what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from protocols.answers import Signals
from protocols.ids import RunId, TaskId
from protocols.money import Amount
from swarm.state.records import Record, Records

KIND = "answer"


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`cost`: what the step used to get it, all its attempts together. `at`: when, in seconds since the epoch."""

    output: dict[str, Any]
    tier: str
    confidence: float
    signals: Signals = Signals()
    run: RunId
    task: TaskId
    cost: Amount = Amount()
    at: float = 0.0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Kept).decode


class Answers:
    """The exact cache of one swarm and tenant. Raises `StoreError`; a body that cannot be read is no answer."""

    def __init__(self, records: Records, scope: str, now: Callable[[], float] = time.time) -> None:
        self._records = records
        self._scope = scope
        self._now = now

    async def find(self, step: str, key: str) -> Kept | None:
        record = await self._records.get(KIND, self._scope, f"{step}/{key}")
        try:
            return None if record is None else _decode(record.body)
        except msgspec.DecodeError:
            return None  # of another program's making

    async def keep(self, step: str, key: str, answer: Kept, ttl_s: float | None = None) -> None:
        expires = None if ttl_s is None else self._now() + ttl_s
        name = f"{step}/{key}"
        await self._records.put(
            [Record(kind=KIND, scope=self._scope, key=name, body=_encode(answer), at=answer.at, expires=expires)]
        )
