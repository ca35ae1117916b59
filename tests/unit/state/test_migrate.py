"""An old store is taken over as it is: its accounts, its open holds, its journal."""

from __future__ import annotations

from pathlib import Path

import apsw
import msgspec
import pytest
from ledger_books import RUN, Books, attempt, result, sql, tokens

from protocols.money import Amount, Limit
from swarm.state.migrate import from_v1
from swarm.state.records import Record
from swarm.state.schema import LEDGER
from swarm.state.sqlite import SqliteStore

# As version 1 made its files.
V1 = """
CREATE TABLE meta (version INTEGER NOT NULL);
INSERT INTO meta VALUES (1);
CREATE TABLE runs (
  id TEXT PRIMARY KEY, swarm TEXT NOT NULL, plan_hash TEXT NOT NULL, started REAL NOT NULL, finished REAL,
  about TEXT NOT NULL
) STRICT;
CREATE TABLE accounts (
  id TEXT PRIMARY KEY, run TEXT NOT NULL REFERENCES runs(id),
  limit_micro_usd INTEGER, limit_tokens INTEGER,
  settled_micro_usd INTEGER NOT NULL DEFAULT 0 CHECK (settled_micro_usd >= 0),
  settled_tokens INTEGER NOT NULL DEFAULT 0 CHECK (settled_tokens >= 0),
  held_micro_usd INTEGER NOT NULL DEFAULT 0 CHECK (held_micro_usd >= 0),
  held_tokens INTEGER NOT NULL DEFAULT 0 CHECK (held_tokens >= 0),
  CHECK (limit_micro_usd IS NULL OR settled_micro_usd + held_micro_usd <= limit_micro_usd),
  CHECK (limit_tokens IS NULL OR settled_tokens + held_tokens <= limit_tokens)
) STRICT, WITHOUT ROWID;
CREATE TABLE holds (
  id TEXT PRIMARY KEY, run TEXT NOT NULL, task TEXT NOT NULL, micro_usd INTEGER NOT NULL, tokens INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('held', 'settled', 'void')),
  overrun_micro_usd INTEGER NOT NULL DEFAULT 0, overrun_tokens INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE attempts (
  id TEXT PRIMARY KEY, run TEXT NOT NULL, body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_of_run ON attempts (run);
CREATE TABLE results (
  task TEXT PRIMARY KEY, run TEXT NOT NULL, status TEXT NOT NULL, body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX results_of_run ON results (run);
"""

# t-1: 30 of 40 held tokens used, 5 micro-dollars beyond what was held; t-2: 20 tokens are still held.
ROWS = """
INSERT INTO runs VALUES ('r-1', 's', 'h', 1.0, NULL, '{"a": 1}'), ('r-0', 's', 'h', 0.5, 0.9, '{}');
INSERT INTO accounts VALUES ('run:r-1', 'r-1', NULL, 100, 3, 30, 0, 20), ('task:t-1', 'r-1', 10, 80, 3, 30, 0, 0),
  ('task:t-2', 'r-1', NULL, NULL, 0, 0, 0, 20), ('run:r-0', 'r-0', 7, NULL, 0, 0, 0, 0);
INSERT INTO holds VALUES ('a-1', 'r-1', 't-1', 3, 40, 'settled', 5, 0), ('a-2', 'r-1', 't-2', 0, 20, 'held', 0, 0),
  ('a-0', 'r-1', 't-2', 0, 9, 'void', 0, 0);
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    db = apsw.Connection(str(path))
    db.pragma("journal_mode", "wal")
    db.execute(V1 + ROWS)
    db.execute("INSERT INTO attempts VALUES ('a-1', 'r-1', ?)", (msgspec.msgpack.encode(attempt("a-1")),))
    db.execute("INSERT INTO results VALUES ('t-1', 'r-1', 'done', ?)", (msgspec.msgpack.encode(result("t-1")),))
    db.close()
    return path


async def test_an_old_store_says_what_it_said(path: Path) -> None:
    """Every balance, limit, overrun, attempt and result; and entries that prove the balances."""
    store = await SqliteStore.open(path)
    await store.check()
    books = Books(path)
    books.check()
    assert books.accounts() == {
        "run:r-1": (Limit(tokens=100), Amount(micro_usd=3, tokens=30), tokens(20)),
        "task:t-1": (Limit(micro_usd=10, tokens=80), Amount(micro_usd=3, tokens=30), Amount()),
        "task:t-2": (Limit(), Amount(), tokens(20)),
        "run:r-0": (Limit(micro_usd=7), Amount(), Amount()),
    }
    assert (await store.balance("run:r-1")).overrun == Amount(micro_usd=5)
    assert (await store.balance("task:t-1")).overrun == Amount(micro_usd=5)
    assert (await store.balance("task:t-2")).overrun == Amount()
    assert await store.attempts(RUN) == [attempt("a-1")]
    assert await store.results(RUN) == [result("t-1")]
    assert [(run.id, run.finished) for run in await store.runs()] == [("r-0", 0.9), ("r-1", None)]
    books.close()
    await store.close()


async def test_work_goes_on_in_an_old_store(path: Path) -> None:
    """Holds count with what was spent before, open ones can be ended, and ended ones stay ended."""
    store = await SqliteStore.open(path)
    refusal = await store.hold("a-3", RUN, "t-2", tokens(51))
    assert (refusal and refusal.account, refusal and refusal.left) == ("run:r-1", 50)
    assert await store.hold("a-3", RUN, "t-2", tokens(50)) is None
    await store.settle(attempt("a-2", "t-2"), RUN, tokens(15))
    await store.settle(attempt("a-0", "t-2"), RUN, tokens(9))
    assert (await store.balance("task:t-2")).settled == tokens(15)
    await store.end(RUN, 2.0)
    assert (await store.balance("run:r-1")).settled == Amount(micro_usd=3, tokens=95)
    await store.check()
    await store.close()


async def test_what_an_old_program_left_open_is_charged(path: Path) -> None:
    """It did not say whether it had been sent."""
    store = await SqliteStore.open(path)
    await store.end(RUN, 2.0)
    assert (await store.balance("task:t-2")).settled == tokens(20)
    await store.check()
    await store.close()


@pytest.mark.parametrize("version", [1, 2])
async def test_an_old_store_becomes_one_like_a_new_one(path: Path, tmp_path: Path, version: int) -> None:
    """The same tables, indexes and triggers; what it kept is sealed, and new things can be kept beside it."""
    if version == 2:
        db = apsw.Connection(str(path))
        from_v1(db, LEDGER)
        db.close()
    new, store = await SqliteStore.open(tmp_path / "new.db"), await SqliteStore.open(path)
    schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
    assert sql(str(path), schema) == sql(str(tmp_path / "new.db"), schema)
    assert await store.problems() == []
    assert await store.attempts(RUN) == [attempt("a-1")]
    assert await store.tasks(RUN) == []
    await store.accept(RUN, "t-3", Limit(), body=b"body")
    await store.records.put([Record(kind="note", scope=RUN, key="k", body=b"b")])
    assert await store.tasks(RUN) == [("t-3", b"body")]
    await new.close()
    await store.close()


async def test_two_programs_may_open_an_old_store(path: Path) -> None:
    """The first takes it over, the second finds it done."""
    one, other = await SqliteStore.open(path), await SqliteStore.open(path)
    await other.hold("a-3", RUN, "t-2", tokens(50))
    assert (await one.balance("run:r-1")).held == tokens(70)
    await one.check()
    await one.close()
    await other.close()
