"""What must last and is neither money nor journal: outbox, dead letters, notes, caches, labels, alarms.

A record is found by its kind, its scope (what it belongs to) and its key. The bodies are their writers' affair.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from swarm.errors import StoreError

Name = tuple[str, str, str]  # kind, scope, key
SWEEP_S = 60.0  # between two lookings for what has expired


class RecordExists(StoreError):
    """A record that had to be new was there already. Nothing was put."""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`at`: when it was made, as its writer says, and `expires`, from when on it is not there: seconds since the epoch.

    `kind`: effect | dead | note | answer | near | label | alarm. `scope`: a run's id for what belongs to a run, else
    "<tenant or ->/<swarm or pack>/…", so that nothing of one tenant serves another.
    """

    kind: str
    scope: str
    key: str
    body: bytes
    at: float = 0.0
    expires: float | None = None

    @property
    def name(self) -> Name:
        return (self.kind, self.scope, self.key)


class Records(Protocol):
    """Every method raises `StoreError` when the store cannot be used, and for a body that is not what was put."""

    async def put(self, records: Sequence[Record], *, new: bool = False) -> None:
        """Put all of them, or none, each in the place of one of the same name. Kept when this returns.

        With `new` none of them may be there, nor twice among them: raises `RecordExists`.
        """
        ...

    async def get(self, kind: str, scope: str, key: str) -> Record | None: ...

    async def scan(self, kind: str, scope: str, *, after: str = "", limit: int = 1000) -> list[Record]:
        """Those whose keys come after `after`, in the order of the keys' code points, at most `limit`."""
        ...

    async def forget(self, kind: str, scope: str | None = None, prefix: str = "") -> int:
        """Remove those of a scope (of all scopes, if None) whose keys begin so; returns how many rows that were."""
        ...


class MemoryRecords:
    """In plain objects, for one event loop. `open_` raises once the store was closed; `now` is the time of day."""

    def __init__(self, open_: Callable[[], object], now: Callable[[], float] = time.time) -> None:
        self._open = open_
        self._now = now
        self._kept: dict[Name, Record] = {}
        self._next_sweep = 0.0

    async def put(self, records: Sequence[Record], *, new: bool = False) -> None:
        self._open()
        if new:
            refuse_known(records, self._known)
        self._kept.update((record.name, record) for record in records)
        if self._now() >= self._next_sweep:
            self._next_sweep = self._now() + SWEEP_S
            for name in list(self._kept):
                self._known(name)

    async def get(self, kind: str, scope: str, key: str) -> Record | None:
        self._open()
        return self._known((kind, scope, key))

    async def scan(self, kind: str, scope: str, *, after: str = "", limit: int = 1000) -> list[Record]:
        self._open()
        of_scope = sorted(name for name in self._kept if name[:2] == (kind, scope) and name[2] > after)
        found = (self._known(name) for name in of_scope)
        return [record for record in found if record is not None][:limit]

    async def forget(self, kind: str, scope: str | None = None, prefix: str = "") -> int:
        self._open()
        gone = [
            name for name in self._kept if name[0] == kind and scope in (None, name[1]) and name[2].startswith(prefix)
        ]
        for name in gone:
            del self._kept[name]
        return len(gone)

    def _known(self, name: Name) -> Record | None:
        record = self._kept.get(name)
        if record is not None and record.expires is not None and record.expires <= self._now():
            del self._kept[name]
            return None
        return record


def refuse_known(records: Sequence[Record], known: Callable[[Name], object]) -> None:
    """Raises `RecordExists` for the first whose name is known, or is another's among them."""
    seen: set[Name] = set()
    for record in records:
        if record.name in seen or known(record.name):
            raise RecordExists(f"{title(record.name)} is there already; nothing was put")
        seen.add(record.name)


def title(name: Name) -> str:
    kind, scope, key = name
    return f"record {kind} {key!r} of {scope!r}"
