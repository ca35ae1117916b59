"""The store in one SQLite file (apsw, WAL, one writer)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import msgspec

from protocols.ids import AttemptId, RunId, TaskId
from protocols.money import Amount, Limit
from protocols.tasks import Result
from swarm.errors import StoreError
from swarm.state.base import AccountId, Attempt, Balance, Refusal, RunRecord
from swarm.state.writer import Writer

VERSION = 1

# The CHECKs state the ledger's invariant; the database itself refuses a commit that would break it.
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (version INTEGER NOT NULL);
INSERT INTO meta SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM meta);
CREATE TABLE IF NOT EXISTS runs (
  id TEXT PRIMARY KEY, swarm TEXT NOT NULL, plan_hash TEXT NOT NULL, started REAL NOT NULL, finished REAL,
  about TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS accounts (
  id TEXT PRIMARY KEY, run TEXT NOT NULL REFERENCES runs(id),
  limit_micro_usd INTEGER, limit_tokens INTEGER,
  settled_micro_usd INTEGER NOT NULL DEFAULT 0 CHECK (settled_micro_usd >= 0),
  settled_tokens INTEGER NOT NULL DEFAULT 0 CHECK (settled_tokens >= 0),
  held_micro_usd INTEGER NOT NULL DEFAULT 0 CHECK (held_micro_usd >= 0),
  held_tokens INTEGER NOT NULL DEFAULT 0 CHECK (held_tokens >= 0),
  CHECK (limit_micro_usd IS NULL OR settled_micro_usd + held_micro_usd <= limit_micro_usd),
  CHECK (limit_tokens IS NULL OR settled_tokens + held_tokens <= limit_tokens)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holds (
  id TEXT PRIMARY KEY, run TEXT NOT NULL, task TEXT NOT NULL, micro_usd INTEGER NOT NULL, tokens INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('held', 'settled', 'void')),
  overrun_micro_usd INTEGER NOT NULL DEFAULT 0, overrun_tokens INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempts (
  id TEXT PRIMARY KEY, run TEXT NOT NULL, body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS attempts_of_run ON attempts (run);
CREATE TABLE IF NOT EXISTS results (
  task TEXT PRIMARY KEY, run TEXT NOT NULL, status TEXT NOT NULL, body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS results_of_run ON results (run);
"""

_HOLD = """
UPDATE accounts SET held_micro_usd = held_micro_usd + ?, held_tokens = held_tokens + ? WHERE id IN (?, ?)
"""
_MOVE = """
UPDATE accounts SET held_micro_usd = held_micro_usd - ?, held_tokens = held_tokens - ?,
  settled_micro_usd = settled_micro_usd + ?, settled_tokens = settled_tokens + ? WHERE id IN (?, ?)
"""


class SqliteStore:
    """`path` may be ":memory:". Opening creates what is missing and refuses a store of a newer program."""

    def __init__(self, path: Path | str) -> None:
        self._writer = Writer(path, SCHEMA)
        self._path = path

    @classmethod
    async def open(cls, path: Path | str) -> SqliteStore:
        store = cls(path)
        version = await store._writer.do(lambda db: db.execute("SELECT version FROM meta").get)
        if version > VERSION:
            await store.close()
            raise StoreError(
                f"{path}: written by a newer program (version {version}, this one reads {VERSION}); upgrade"
            )
        return store

    async def begin(self, run: RunRecord, limit: Limit) -> None:
        def write(db: apsw.Connection) -> None:
            about = msgspec.json.encode(run.about).decode()
            db.execute(
                "INSERT INTO runs (id, swarm, plan_hash, started, about) VALUES (?, ?, ?, ?, ?)",
                (run.id, run.swarm, run.plan_hash, run.started, about),
            )
            _open_account(db, f"run:{run.id}", run.id, limit)

        await self._writer.do(write)

    async def end(self, run: RunId, finished: float) -> None:
        def write(db: apsw.Connection) -> None:
            for hold, task, micro, tokens in db.execute(
                "SELECT id, task, micro_usd, tokens FROM holds WHERE run = ? AND state = 'held'", (run,)
            ).fetchall():
                db.execute("UPDATE holds SET state = 'settled' WHERE id = ?", (hold,))
                db.execute(_MOVE, (micro, tokens, micro, tokens, f"run:{run}", f"task:{task}"))
            db.execute("UPDATE runs SET finished = ? WHERE id = ?", (finished, run))

        await self._writer.do(write)

    async def accept(self, run: RunId, task: TaskId, limit: Limit) -> None:
        await self._writer.do(lambda db: _open_account(db, f"task:{task}", run, limit))

    async def hold(self, id: AttemptId, run: RunId, task: TaskId, amount: Amount) -> Refusal | None:
        if amount.micro_usd < 0 or amount.tokens < 0:
            raise StoreError(f"hold {id}: a negative amount cannot be held")

        def write(db: apsw.Connection) -> Refusal | None:
            accounts = (f"task:{task}", f"run:{run}")
            for account in accounts:
                if refusal := _refused(account, _balance(db, account), amount):
                    return refusal
            db.execute(_HOLD, (amount.micro_usd, amount.tokens, *accounts))
            db.execute("INSERT INTO holds (id, run, task, micro_usd, tokens, state) VALUES (?, ?, ?, ?, ?, 'held')",
                       (id, run, task, amount.micro_usd, amount.tokens))  # fmt: skip
            return None

        return await self._writer.do(write)

    async def settle(self, attempt: Attempt, run: RunId, used: Amount) -> None:
        await self._writer.do(lambda db: _end_hold(db, attempt, run, used, "settled"))

    async def void(self, attempt: Attempt, run: RunId) -> None:
        await self._writer.do(lambda db: _end_hold(db, attempt, run, Amount(), "void"))

    async def finish(self, run: RunId, result: Result) -> None:
        row = (result.task, run, result.status, msgspec.msgpack.encode(result))
        await self._writer.do(lambda db: db.execute("INSERT INTO results VALUES (?, ?, ?, ?)", row) and None)

    async def balance(self, account: AccountId) -> Balance:
        def read(db: apsw.Connection) -> Balance:
            return msgspec.structs.replace(_balance(db, account), overrun=_overrun(db, account))

        return await self._writer.do(read)

    async def run(self, id: RunId) -> RunRecord | None:
        return next((run for run in await self._runs("WHERE id = ?", (id,))), None)

    async def runs(self) -> list[RunRecord]:
        return await self._runs("ORDER BY started", ())

    async def attempts(self, run: RunId) -> list[Attempt]:
        return await self._bodies("SELECT body FROM attempts WHERE run = ? ORDER BY id", run, Attempt)

    async def results(self, run: RunId) -> list[Result]:
        return await self._bodies("SELECT body FROM results WHERE run = ? ORDER BY task", run, Result)

    async def close(self) -> None:
        await self._writer.close()

    async def _runs(self, where: str, arguments: tuple[str, ...]) -> list[RunRecord]:
        query = f"SELECT id, swarm, plan_hash, started, about, finished FROM runs {where}"
        rows: list[Any] = await self._writer.do(lambda db: db.execute(query, arguments).fetchall())
        return [
            RunRecord(id=i, swarm=s, plan_hash=h, started=t, about=msgspec.json.decode(about), finished=end)
            for i, s, h, t, about, end in rows
        ]

    async def _bodies(self, query: str, run: RunId, kind: Callable[..., Any]) -> list[Any]:
        rows: list[Any] = await self._writer.do(lambda db: db.execute(query, (run,)).fetchall())
        return [msgspec.msgpack.decode(body, type=kind) for (body,) in rows]


def _open_account(db: apsw.Connection, account: AccountId, run: RunId, limit: Limit) -> None:
    db.execute(
        "INSERT INTO accounts (id, run, limit_micro_usd, limit_tokens) VALUES (?, ?, ?, ?)",
        (account, run, limit.micro_usd, limit.tokens),
    )


def _balance(db: apsw.Connection, account: AccountId) -> Balance:
    row = db.execute(
        "SELECT limit_micro_usd, limit_tokens, settled_micro_usd, settled_tokens, held_micro_usd, held_tokens "
        "FROM accounts WHERE id = ?", (account,)
    ).fetchone()  # fmt: skip
    if row is None:
        raise StoreError(f"account {account!r} does not exist")
    limit_usd, limit_tokens, settled_usd, settled_tokens, held_usd, held_tokens = row
    return Balance(
        limit=Limit(micro_usd=limit_usd, tokens=limit_tokens),
        settled=Amount(micro_usd=settled_usd, tokens=settled_tokens),
        held=Amount(micro_usd=held_usd, tokens=held_tokens),
    )


def _overrun(db: apsw.Connection, account: AccountId) -> Amount:
    kind, _, name = account.partition(":")
    sums = "SELECT total(overrun_micro_usd), total(overrun_tokens) FROM holds"
    micro, tokens = db.execute(f"{sums} WHERE {'run' if kind == 'run' else 'task'} = ?", (name,)).get
    return Amount(micro_usd=int(micro), tokens=int(tokens))


def _refused(account: AccountId, balance: Balance, wanted: Amount) -> Refusal | None:
    for unit, limit, settled, held, amount in (
        ("usd", balance.limit.micro_usd, balance.settled.micro_usd, balance.held.micro_usd, wanted.micro_usd),
        ("tokens", balance.limit.tokens, balance.settled.tokens, balance.held.tokens, wanted.tokens),
    ):
        if limit is not None and settled + held + amount > limit:
            return Refusal(account, unit, amount, limit - settled - held, passing=settled + amount <= limit)
    return None


def _end_hold(db: apsw.Connection, attempt: Attempt, run: RunId, used: Amount, state: str) -> None:
    row = db.execute("SELECT task, micro_usd, tokens, state FROM holds WHERE id = ?", (attempt.id,)).fetchone()
    if row is not None and row[3] == "held":
        task, micro, tokens, _ = row
        used = Amount(micro_usd=max(0, used.micro_usd), tokens=max(0, used.tokens))
        charged = (min(used.micro_usd, micro), min(used.tokens, tokens))
        over = (used.micro_usd - charged[0], used.tokens - charged[1])
        db.execute(_MOVE, (micro, tokens, *charged, f"task:{task}", f"run:{run}"))
        db.execute(
            "UPDATE holds SET state = ?, overrun_micro_usd = ?, overrun_tokens = ? WHERE id = ?",
            (state, *over, attempt.id),
        )
    db.execute("INSERT OR IGNORE INTO attempts VALUES (?, ?, ?)", (attempt.id, run, msgspec.msgpack.encode(attempt)))
