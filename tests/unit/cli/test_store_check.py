"""`swarm store check` says what is wrong with a store, a line each, and exits with 1 for any."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import pytest
from typer.testing import CliRunner

from protocols.money import Amount, Limit
from protocols.records import RunRecord
from swarm.cli.store import app
from swarm.errors import StoreError
from swarm.state.records import Record
from swarm.state.sqlite import SqliteStore


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a run, a task that holds something, and a note."""
    path = tmp_path / "store.db"

    async def make() -> None:
        store = await SqliteStore.open(path)
        await store.begin(RunRecord(id="r-1", swarm="s", plan_hash="h", started=1.0), Limit())
        await store.accept("r-1", "t-1", Limit(), body=b"a task")
        await store.hold("a-1", "r-1", "t-1", Amount(tokens=20))
        await store.records.put([Record(kind="note", scope="-/s", key="k", body=b"a note")])
        await store.close()

    asyncio.run(make())
    return path


def test_a_sound_store_is_fine(store: Path) -> None:
    """One line, exit code 0."""
    done = CliRunner().invoke(app, ["check", str(store)])
    assert (done.exit_code, done.output) == (0, "fine: the balances follow from the entries, and every checksum fits\n")


def test_every_problem_is_a_line(store: Path) -> None:
    """Wrong books and broken checksums alike, exit code 1."""
    db = apsw.Connection(str(store))
    db.execute("UPDATE accounts SET settled_tokens = 7; UPDATE tasks SET body = x'00'; UPDATE records SET body = x'00'")
    db.close()
    done = CliRunner().invoke(app, ["check", str(store)])
    assert done.exit_code == 1
    assert sorted(done.output.splitlines()) == [
        "record note 'k' of '-/s': its checksum does not fit",
        "run:r-1 has spent (0, 7, 0), its entries say (0, 0, 0)",
        "task 't-1': its checksum does not fit",
        "task:t-1 has spent (0, 7, 0), its entries say (0, 0, 0)",
    ]


def test_a_damaged_file_is_said_to_be(store: Path) -> None:
    """An index that does not fit its table is found, though everything that is asked for can be read."""
    db = apsw.Connection(str(store))
    page = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'tasks_of_run'").get
    db.close()
    whole = bytearray(store.read_bytes())
    at = whole.index(b"r-1", (page - 1) * 4096)
    whole[at : at + 3] = b"r-9"
    store.write_bytes(whole)
    done = CliRunner().invoke(app, ["check", str(store)])
    assert done.exit_code == 1
    assert "the file is damaged" in done.output
    assert "index tasks_of_run" in done.output


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """The error names the file."""
    done = CliRunner().invoke(app, ["check", str(tmp_path / "none.db")])
    assert isinstance(done.exception, StoreError)
    assert "none.db: no store there" in str(done.exception)
    assert list(tmp_path.iterdir()) == []
