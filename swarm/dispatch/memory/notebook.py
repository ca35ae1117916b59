"""The notes of one swarm and one tenant in the store, by key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from urllib.parse import quote, unquote

import msgspec

from swarm.dispatch.memory.note import Note
from swarm.state.records import Record, Records

KIND = "note"
SUMMARY = "!"  # in the place of a task, whose name cannot hold it
PAGE = 100  # notes read at once; a key has few more than half as many

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Note).decode


class Notebook:
    """`scope`: whose notes these are; nothing is read or kept outside of it. Every method raises `StoreError`."""

    def __init__(self, records: Records, scope: str, now: Callable[[], float] = time.time) -> None:
        self._records = records
        self._scope = scope
        self._now = now

    async def put(self, key: str, note: Note) -> None:
        """Add a note, in place of the one that the same step of the same task has made, or of the last summary."""
        record = Record(kind=KIND, scope=self._scope, key=_name(key, note), body=_encode(note), at=self._now())
        await self._records.put([record])

    async def of(self, key: str) -> list[Note]:
        """The notes under a key, the oldest first; a summary before all others."""
        found = [(record.at, note) for record in await self._from(_prefix(key)) if (note := _read(record)) is not None]
        return [note for _, note in sorted(found, key=lambda each: (not each[1].summary, each[0]))]

    async def all(self) -> list[tuple[str, float, Note]]:
        """Every note with its key and the time of day at which it was made; key by key, in the order of `of`."""
        records = await self._from("")
        found = [(_key(record.key), record.at, note) for record in records if (note := _read(record)) is not None]
        return sorted(found, key=lambda each: (each[0], not each[2].summary, each[1]))

    async def drop(self, key: str, notes: list[Note]) -> None:
        """Forget these."""
        names = (_name(key, note) for note in notes)
        await asyncio.gather(*(self._records.forget(KIND, self._scope, name) for name in names))

    async def forget(self, key: str | None = None) -> int:
        """Forget all notes under a key, or all there are; how many they were."""
        return await self._records.forget(KIND, self._scope, "" if key is None else _prefix(key))

    async def _from(self, prefix: str) -> list[Record]:
        """Those whose names begin so; they lie side by side."""
        found: list[Record] = []
        after = prefix
        while page := await self._records.scan(KIND, self._scope, after=after, limit=PAGE):
            found += [record for record in page if record.key.startswith(prefix)]
            after = page[-1].key
            if not after.startswith(prefix):
                break
        return found


def _read(record: Record) -> Note | None:
    try:
        return _decode(record.body)
    except msgspec.DecodeError:
        return None  # of another program's making


def _prefix(key: str) -> str:
    return f"{_quoted(key)}/"


def _name(key: str, note: Note) -> str:
    """Ends in a mark that no part holds, so that no name is the beginning of another."""
    of = SUMMARY if note.summary else f"{_quoted(note.task)}/{note.step}"
    return f"{_prefix(key)}{of}/"


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")


def _key(name: str) -> str:
    return unquote(name.split("/", 1)[0], errors="surrogatepass")
