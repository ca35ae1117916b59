"""Caches are in a file of their own beside the store's, which may be lost and is never in the way."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from ledger_books import RUN, record, sql

from protocols.money import Limit
from swarm.errors import StoreError
from swarm.state import schema
from swarm.state.records import Record
from swarm.state.sqlite import SqliteStore

ANSWER = Record(kind="answer", scope="-/s", key="k", body=b"answer")


async def test_a_store_without_caches_has_no_file_for_them(tmp_path: Path) -> None:
    """It is made when it is first asked for; a check makes none."""
    store = await SqliteStore.open(tmp_path / "store.db")
    await store.begin(record(), Limit())
    assert await store.problems() == []
    assert not (tmp_path / "store.caches.db").exists()
    await store.caches.put([ANSWER])
    assert (tmp_path / "store.caches.db").is_file()
    await store.close()


async def test_caches_may_be_deleted(tmp_path: Path) -> None:
    """What was cached is not there then, and nothing else is missing."""
    store = await SqliteStore.open(tmp_path / "store.db")
    await store.begin(record(), Limit())
    await store.caches.put([ANSWER])
    await store.close()
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"store.caches.db{end}").unlink(missing_ok=True)
    again = await SqliteStore.open(tmp_path / "store.db")
    assert await again.caches.get("answer", "-/s", "k") is None
    assert [run.id for run in await again.runs()] == [RUN]
    await again.close()


async def test_caches_of_another_version_are_begun_anew(tmp_path: Path) -> None:
    """Nothing in them is the truth, so nothing is migrated."""
    store = await SqliteStore.open(tmp_path / "store.db")
    await store.caches.put([ANSWER])
    await store.close()
    sql(str(tmp_path / "store.caches.db"), "PRAGMA user_version = 9; ALTER TABLE records RENAME COLUMN body TO other")
    again = await SqliteStore.open(tmp_path / "store.db")
    assert await again.caches.get("answer", "-/s", "k") is None
    await again.caches.put([ANSWER])
    assert await again.caches.get("answer", "-/s", "k") == ANSWER
    await again.close()


async def test_a_damaged_cache_is_found_out(tmp_path: Path) -> None:
    """Reading is an error, a check names it, and the store itself is fine."""
    store = await SqliteStore.open(tmp_path / "store.db")
    await store.caches.put([ANSWER])
    sql(str(tmp_path / "store.caches.db"), "UPDATE records SET body = x'00'")
    with pytest.raises(StoreError, match="record answer 'k' of '-/s' is damaged"):
        await store.caches.get("answer", "-/s", "k")
    assert await store.problems() == ["record answer 'k' of '-/s': its checksum does not fit"]
    await store.check()
    await store.close()


async def test_what_keeps_a_check_from_looking_is_found_too(tmp_path: Path) -> None:
    """A cache's file that is no database is one line, among whatever else is wrong."""
    store = await SqliteStore.open(tmp_path / "store.db")
    (tmp_path / "store.caches.db").write_bytes(b"This is a letter, longer than the header of a database." * 20)
    (problem,) = await store.problems()
    assert "store.caches.db: the store cannot be opened" in problem
    assert problem.endswith("nothing but caches is kept there, it may be deleted")
    await store.close()


async def test_a_sqlite_that_can_lose_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that apsw comes with here is sound; with an older one no store is opened."""
    schema.require_sound()
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(StoreError, match=r"SQLite 3.51.2 can lose committed rows, 3.51.3 does not; `pip install"):
        await SqliteStore.open(tmp_path / "store.db")
