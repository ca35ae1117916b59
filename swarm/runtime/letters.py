"""Dead letters, kept with their run so that a person can look at them and ask again."""

from __future__ import annotations

import asyncio
import time

import msgspec
import structlog

from protocols.answers import Ask
from protocols.ids import RunId, new_id
from swarm.bus.letters import DeadLetter
from swarm.errors import StoreError
from swarm.state.records import Record, Records

log = structlog.get_logger(__name__)

KIND = "dead"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(DeadLetter).decode


class Letters:
    """Puts every letter into the store, on the event loop that calls `keep`. `run`: the one that is worked on."""

    def __init__(self, records: Records, run: RunId) -> None:
        self.run = run
        self._records = records
        self._writing: set[asyncio.Task[None]] = set()

    def keep(self, letter: DeadLetter) -> None:
        """Returns at once. What cannot be written is in the log, whole."""
        body = letter.envelope.body
        key = body.id if isinstance(body, Ask) else new_id("d")
        record = Record(kind=KIND, scope=self.run, key=key, body=_encode(letter), at=time.time())
        task = asyncio.get_running_loop().create_task(self._put(record))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Wait until all are written. To be called before the store is closed."""
        await asyncio.gather(*self._writing)

    async def _put(self, record: Record) -> None:
        try:
            await self._records.put([record])
        except StoreError as e:
            log.error("dead_letter.not_kept", run=record.scope, letter=record.key, cause=str(e), body=record.body.hex())


async def letters(records: Records, run: RunId) -> dict[str, tuple[float, DeadLetter]]:
    """The dead letters of a run, by the id of what was asked, each with the time of day at which it was given up."""
    found: dict[str, tuple[float, DeadLetter]] = {}
    while page := await records.scan(KIND, run, after=max(found, default="")):
        found |= {record.key: (record.at, _decode(record.body)) for record in page}
    return found
