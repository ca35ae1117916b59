"""A disk that fails at any write or sync costs nothing that was acknowledged, and never the file.

`SWARM_DISK_PLACES=all` tries every place; otherwise a few are tried.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import fault_disk
import pytest
from ledger_books import Books, sql

from swarm.state.sqlite import SqliteStore

STEP = 1 if os.environ.get("SWARM_DISK_PLACES") == "all" else 61


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what every program on a failing disk has left."""
    folder = tmp_path_factory.mktemp("failed")
    command = [sys.executable, fault_disk.__file__, str(folder), str(min(STEP, 3)), str(STEP)]
    path = os.pathsep.join(sys.path)
    made = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=3000, env=os.environ | {"PYTHONPATH": path}
    )
    (folder / "ends").write_text(made.stdout)
    return folder


@pytest.mark.parametrize("kind", fault_disk.KINDS)
def test_a_disk_that_fails_anywhere_costs_nothing_acknowledged(failed: Path, kind: str) -> None:
    """The file is whole, its books are right, and every acknowledged step is there; one error stops nobody."""
    ends = list(_ends(failed, kind))
    assert len(ends) > 4
    for place, code in ends:
        path = failed / f"{kind}-{place}.db"
        said = path.with_suffix(".acks").read_text().splitlines() if path.with_suffix(".acks").exists() else []
        if kind == "error":
            assert (code, len(said)) == (0, len(fault_disk.STEPS)), (kind, place)
        else:
            assert code == fault_disk.GONE, (kind, place)
        assert_kept(path, said, f"{kind} at {place}")


def assert_kept(path: Path, said: list[str], where: str) -> None:
    for file in (path, path.with_suffix(".caches.db")):
        file.with_name(f"{file.name}-shm").unlink(missing_ok=True)  # memory: gone with the machine
        if file.exists():
            assert sql(str(file), "PRAGMA integrity_check") == [("ok",)], where
    asyncio.run(_sound(path, where))
    for name, _, seen in fault_disk.STEPS:
        if name in said:
            assert sql(str(path), seen) == [(1,)], (where, name)


async def _sound(path: Path, where: str) -> None:
    store = await SqliteStore.open(path)
    assert await store.problems() == [], where
    books = Books(path)
    books.check()
    books.close()
    await store.close()


def _ends(folder: Path, kind: str) -> Iterator[tuple[int, int]]:
    for line in (folder / "ends").read_text().splitlines():
        of, place, code = line.split()
        if of == kind:
            yield int(place), int(code)


def test_the_power_cut_of_these_tests_loses_something(tmp_path: Path) -> None:
    """Without syncs rows are lost, so that the tests above would notice a store that does not wait for them."""
    pid = os.fork()
    if pid == 0:
        try:
            _write_without_syncs(tmp_path / "x.db")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == fault_disk.GONE
    (tmp_path / "x.db-shm").unlink(missing_ok=True)
    assert sql(str(tmp_path / "x.db"), "SELECT name FROM sqlite_schema") == []


def _write_without_syncs(path: Path) -> None:
    disk = fault_disk.FaultyDisk(0, "power")
    db = apsw.Connection(str(path))
    for command in ("PRAGMA journal_mode = wal", "PRAGMA synchronous = off", "CREATE TABLE t (x)"):
        db.execute(command).fetchall()
    disk.at = disk.calls + 1
    db.execute("INSERT INTO t VALUES (1)")
