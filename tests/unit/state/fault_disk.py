"""A disk that fails at one write or sync, and programs that work on it: one for each place and kind of failure.

    python fault_disk.py FOLDER FIRST STEP

tries every STEP-th place from FIRST on, and writes FOLDER/<kind>-<place>.db with `.acks` beside it: the steps that were
acknowledged. A line there outlives everything.

The kinds: `error`, the call fails once; `crash`, the program is gone; `power`, it is gone and with it what was written
since the last sync, all of it (`power`) or every other write and half of the last one (`torn`).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
from ledger_books import RUN, attempt, record, result, tokens

from protocols.money import Amount, Limit
from swarm.errors import StoreError
from swarm.state.base import Draw
from swarm.state.records import Record
from swarm.state.sqlite import SqliteStore

KINDS = ("error", "crash", "power", "torn")
GONE = 9
TRIES = 3  # of a step that has failed

NOTE = Record(kind="note", scope=RUN, key="k", body=b"noted " * 500)
Step = tuple[str, Callable[[SqliteStore], Awaitable[Any]], str]

# What is done, and what can be seen in the file once it was acknowledged.
STEPS: tuple[Step, ...] = (
    ("tenant", lambda s: s.tenant("acme", Limit(tokens=900)), "SELECT count(*) FROM accounts WHERE id = 'tenant:acme'"),
    ("begin", lambda s: s.begin(record(), Limit(tokens=800), "acme"), "SELECT count(*) FROM runs"),
    *(
        (
            f"accept {task}",
            lambda s, task=task: s.accept(RUN, task, Limit(tokens=200), {"s": Limit(tokens=99)}, body=b"body" * 300),
            f"SELECT count(*) FROM tasks JOIN accounts ON accounts.id = 'step:{task}/s' WHERE tasks.id = '{task}'",
        )
        for task in ("t-1", "t-2", "t-3", "t-4")
    ),
    *(
        (
            f"hold {id}",
            lambda s, id=id, task=task: s.hold(id, RUN, task, tokens(20), sent=False),
            f"SELECT count(*) FROM holds WHERE id = '{id}'",
        )
        for id, task in (("a-1", "t-1"), ("a-2", "t-2"), ("a-3", "t-3"), ("a-4", "t-3"))
    ),
    *(
        (f"sent {id}", lambda s, id=id: s.sent(id), f"SELECT state <> 'held' FROM holds WHERE id = '{id}'")
        for id in ("a-1", "a-2", "a-3")
    ),
    *(
        (
            f"settle {id}",
            lambda s, id=id, task=task: s.settle(attempt(id, task, reason="r" * 700), RUN, tokens(15)),
            f"SELECT count(*) FROM attempts JOIN holds USING (id) WHERE id = '{id}' AND state = 'settled'",
        )
        for id, task in (("a-1", "t-1"), ("a-2", "t-2"))
    ),
    ("void", lambda s: s.void(attempt("a-4", "t-3"), RUN), "SELECT state = 'void' FROM holds WHERE id = 'a-4'"),
    *(
        (
            f"finish {task}",
            lambda s, task=task: s.finish(RUN, result(task, reason="r" * 900)),
            f"SELECT count(*) FROM results WHERE task = '{task}'",
        )
        for task in ("t-1", "t-2")
    ),
    ("put", lambda s: s.records.put([NOTE]), "SELECT count(*) FROM records WHERE key = 'k'"),
    ("cache", lambda s: s.caches.put([NOTE]), "SELECT 1"),
    ("lease", lambda s: s.lease("l-1", RUN, tokens(100)), "SELECT count(*) FROM holds WHERE id = 'l-1'"),
    (
        "draw",
        lambda s: s.draw("l-1", RUN, [Draw(attempt("d-1", "t-4"), "task:t-4", tokens(9), tokens(7), False)]),
        "SELECT count(*) FROM attempts WHERE id = 'd-1'",
    ),
    ("give back", lambda s: s.give_back("l-1", Amount()), "SELECT state = 'settled' FROM holds WHERE id = 'l-1'"),
    ("forget", lambda s: s.records.forget("note", RUN, "other"), "SELECT 1"),
    ("hold a-5", lambda s: s.hold("a-5", RUN, "t-4", tokens(5)), "SELECT count(*) FROM holds WHERE id = 'a-5'"),
    ("finish t-4", lambda s: s.finish(RUN, result("t-4")), "SELECT count(*) FROM results WHERE task = 't-4'"),
    ("end", lambda s: s.end(RUN, 9.0), "SELECT count(*) FROM entries WHERE hold = 'a-5' AND kind = 'recover'"),
    ("reopen", lambda s: s.reopen(RUN), "SELECT 1"),
    ("accept t-5", lambda s: s.accept(RUN, "t-5", Limit(), body=b"b"), "SELECT count(*) FROM tasks WHERE id = 't-5'"),
    ("end again", lambda s: s.end(RUN, 9.5), "SELECT finished = 9.5 FROM runs"),
)


class FaultyDisk(apsw.VFS):
    """The default for all connections from now on. Fails at the `at`-th write or sync of all files together."""

    def __init__(self, at: int, kind: str) -> None:
        self.base = apsw.vfs_names()[0]
        self.calls = 0
        self.at = at
        self.kind = kind
        self.full = False
        self.files: list[_File] = []
        super().__init__("faulty", self.base, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> _File:
        file = _File(self, name, flags)
        self.files.append(file)
        return file

    def passing(self, torn: Callable[[], None] = lambda: None) -> None:
        self.calls += 1
        if self.full:
            raise apsw.FullError("there is no room")
        if self.calls != self.at:
            return
        if self.kind == "error":
            raise apsw.IOError("the disk says no")
        if self.kind == "torn":
            torn()
        if self.kind in ("power", "torn"):
            for file in self.files:
                file.lose(every_other=self.kind == "torn")
        os._exit(GONE)


class _File(apsw.VFSFile):
    """Remembers what was written since the last sync, and what was there before."""

    def __init__(self, disk: FaultyDisk, name: Any, flags: list[int]) -> None:
        self.disk = disk
        self.unsynced: list[tuple[int, int, bytes, bytes]] = []  # size before, offset, old bytes, new bytes
        super().__init__(disk.base, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self.disk.passing(lambda: self._write(bytes(data[: len(data) // 2]), offset))
        self._write(bytes(data), offset)

    def _write(self, data: bytes, offset: int) -> None:
        size = self.xFileSize()
        old = super().xRead(min(len(data), size - offset), offset) if offset < size else b""
        super().xWrite(data, offset)
        self.unsynced.append((size, offset, old, data))

    def xSync(self, flags: int) -> None:
        self.disk.passing()
        super().xSync(flags)
        self.unsynced.clear()

    def xClose(self) -> None:
        self.disk.files.remove(self)
        super().xClose()

    def lose(self, every_other: bool) -> None:
        for size, offset, old, _ in reversed(self.unsynced):
            if old:
                super().xWrite(old, offset)
            super().xTruncate(size)
        for _, offset, _, new in self.unsynced[1::2] if every_other else ():
            super().xWrite(new, offset)


async def work(path: Path, acks: Callable[[str], None]) -> None:
    """All steps in order; one that fails is tried again."""
    store = await _again(lambda: SqliteStore.open(path))
    for name, step, _ in STEPS:
        await _again(lambda step=step: step(store))
        acks(name)
    await store.close()


async def _again(step: Callable[[], Awaitable[Any]]) -> Any:
    for n in range(TRIES):
        try:
            return await step()
        except StoreError:
            if n == TRIES - 1:
                raise
    raise AssertionError


def child(path: Path, kind: str, at: int) -> None:
    disk = FaultyDisk(at, kind)
    acks = path.with_suffix(".acks").open("a", buffering=1)
    asyncio.run(work(path, lambda name: print(name, file=acks)))
    path.with_suffix(".calls").write_text(str(disk.calls))


def forked(path: Path, kind: str, at: int) -> int:
    """The exit code of one program; forked before anything of asyncio or SQLite has begun."""
    pid = os.fork()
    if pid == 0:
        try:
            child(path, kind, at)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def main(folder: Path, first: int, step: int) -> None:
    forked(folder / "whole.db", "none", 0)
    calls = int((folder / "whole.calls").read_text())
    for kind in KINDS:
        for at in range(first, calls + 1, step):
            print(kind, at, forked(folder / f"{kind}-{at}.db", kind, at), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
