"""The outbox of a run: each write to the world outside, by its idempotency key, and what is known of its outcome."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from protocols.answers import Answer, Failed
from protocols.ids import RunId, TaskId
from swarm.errors import StoreError
from swarm.state.records import Record, Records

KIND = "effect"

State = Literal["intended", "unknown", "done", "failed"]


class Effect(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of one write.

    `intended`: asked, and not answered as far as the store knows. `unknown`: it may have been done or not, `why` says
    how that came. `done`, `failed`: the tool has said so, in `reply`; `why` where a person has said it instead.
    """

    task: TaskId
    step: str
    state: State
    input: dict[str, Any]
    reply: Answer | Failed | None = None
    why: str = ""

    @property
    def is_open(self) -> bool:
        """Whether nobody knows what came of it."""
        return self.state in ("intended", "unknown")


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Effect).decode


class Outbox:
    """One run's. Every method raises `StoreError`; what was put is durable when `put` returns."""

    def __init__(self, records: Records, run: RunId, now: Callable[[], float] = time.time) -> None:
        self._records = records
        self._run = run
        self._now = now

    async def put(self, key: str, effect: Effect, *, new: bool = False) -> None:
        """With `new` there may be none of that key: raises `RecordExists`."""
        record = Record(kind=KIND, scope=self._run, key=key, body=_encode(effect), at=self._now())
        await self._records.put([record], new=new)

    async def find(self, key: str) -> Effect | None:
        record = await self._records.get(KIND, self._run, key)
        return None if record is None else _read(record)

    async def forget(self, key: str) -> None:
        await self._records.forget(KIND, self._run, key)

    async def all(self) -> dict[str, tuple[float, Effect]]:
        """By key; each with the time of day of what was noted last, the oldest first."""
        found: list[Record] = []
        while page := await self._records.scan(KIND, self._run, after=found[-1].key if found else ""):
            found += page
        return {record.key: (record.at, _read(record)) for record in sorted(found, key=lambda record: record.at)}


def _read(record: Record) -> Effect:
    try:
        return _decode(record.body)
    except msgspec.DecodeError as e:
        raise StoreError(f"effect {record.key[:12]!r} of {record.scope!r} cannot be read: {e}") from e
