"""What the store's file looks like, and how it comes to look like that.

SQLite 3.51.3 is the least that is used: those from 3.7.0 to 3.51.2 can lose committed rows of a file in WAL mode when
one connection resets the log while another begins a checkpoint (sqlite.org/wal.html, "The WAL-Reset Bug").
"""

from __future__ import annotations

from pathlib import Path

import apsw

from swarm.errors import StoreError
from swarm.state.migrate import from_v1, from_v2

VERSION = 3
SQLITE = (3, 51, 3)

META = f"""
CREATE TABLE meta (version INTEGER NOT NULL);
INSERT INTO meta VALUES ({VERSION});
CREATE TABLE runs (
  id TEXT PRIMARY KEY, swarm TEXT NOT NULL, plan_hash TEXT NOT NULL, started REAL NOT NULL, finished REAL,
  about TEXT NOT NULL
) STRICT;
"""

# Every body has its checksum beside it. Tasks are read in the order in which they were written.
JOURNAL = """
CREATE TABLE attempts (
  id TEXT PRIMARY KEY, run TEXT NOT NULL, body BLOB NOT NULL, digest BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_of_run ON attempts (run);
CREATE TABLE results (
  task TEXT PRIMARY KEY, run TEXT NOT NULL, status TEXT NOT NULL, body BLOB NOT NULL, digest BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX results_of_run ON results (run);
CREATE TABLE tasks (
  place INTEGER PRIMARY KEY, id TEXT NOT NULL, run TEXT NOT NULL, body BLOB NOT NULL, digest BLOB NOT NULL
) STRICT;
CREATE INDEX tasks_of_run ON tasks (run);
"""

RECORDS = """
CREATE TABLE records (
  kind TEXT NOT NULL, scope TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, digest BLOB NOT NULL,
  at REAL NOT NULL, expires REAL, PRIMARY KEY (kind, scope, key)
) STRICT;
CREATE INDEX expiring_records ON records (expires) WHERE expires IS NOT NULL;
"""

# The CHECKs state the ledger's invariant; the database itself refuses a commit that would break it. The balances are
# derived from `entries`, and kept beside them so that nobody has to sum. One row of `entries` is both legs of a
# transfer, so each unit sums to nothing whatever is booked; `legs` shows them apart, signed.
LEDGER = """
CREATE TABLE accounts (
  id TEXT PRIMARY KEY, run TEXT NOT NULL, parent TEXT REFERENCES accounts(id),
  limit_micro_usd INTEGER, limit_tokens INTEGER, limit_ms INTEGER,
  settled_micro_usd INTEGER NOT NULL DEFAULT 0 CHECK (settled_micro_usd >= 0),
  settled_tokens INTEGER NOT NULL DEFAULT 0 CHECK (settled_tokens >= 0),
  settled_ms INTEGER NOT NULL DEFAULT 0 CHECK (settled_ms >= 0),
  held_micro_usd INTEGER NOT NULL DEFAULT 0 CHECK (held_micro_usd >= 0),
  held_tokens INTEGER NOT NULL DEFAULT 0 CHECK (held_tokens >= 0),
  held_ms INTEGER NOT NULL DEFAULT 0 CHECK (held_ms >= 0),
  overrun_micro_usd INTEGER NOT NULL DEFAULT 0, overrun_tokens INTEGER NOT NULL DEFAULT 0,
  overrun_ms INTEGER NOT NULL DEFAULT 0,
  CHECK (limit_micro_usd IS NULL OR settled_micro_usd + held_micro_usd <= limit_micro_usd),
  CHECK (limit_tokens IS NULL OR settled_tokens + held_tokens <= limit_tokens),
  CHECK (limit_ms IS NULL OR settled_ms + held_ms <= limit_ms)
) STRICT, WITHOUT ROWID;
CREATE TABLE holds (
  id TEXT PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('attempt', 'lease', 'drawn')),
  account TEXT NOT NULL, run TEXT NOT NULL, owner TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('held', 'sent', 'settled', 'void')),
  micro_usd INTEGER NOT NULL CHECK (micro_usd >= 0), tokens INTEGER NOT NULL CHECK (tokens >= 0),
  ms INTEGER NOT NULL CHECK (ms >= 0),
  charged_micro_usd INTEGER NOT NULL DEFAULT 0, charged_tokens INTEGER NOT NULL DEFAULT 0,
  charged_ms INTEGER NOT NULL DEFAULT 0,
  overrun_micro_usd INTEGER NOT NULL DEFAULT 0, overrun_tokens INTEGER NOT NULL DEFAULT 0,
  overrun_ms INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX open_holds ON holds (run) WHERE state IN ('held', 'sent');
CREATE TABLE keys (
  verb TEXT NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (verb, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE owners (id TEXT PRIMARY KEY, beats INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE entries (
  id INTEGER PRIMARY KEY, transaction_id INTEGER NOT NULL, kind TEXT NOT NULL, hold TEXT NOT NULL,
  account TEXT NOT NULL, debit TEXT NOT NULL, credit TEXT NOT NULL,
  micro_usd INTEGER NOT NULL CHECK (micro_usd >= 0), tokens INTEGER NOT NULL CHECK (tokens >= 0),
  ms INTEGER NOT NULL CHECK (ms >= 0)
) STRICT;
CREATE TRIGGER entries_stay BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'entries are only added'); END;
CREATE TRIGGER entries_hold BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'entries are only added'); END;
CREATE VIEW legs AS
  SELECT transaction_id, kind, hold, account, debit AS part, -micro_usd AS micro_usd, -tokens AS tokens, -ms AS ms
    FROM entries
  UNION ALL
  SELECT transaction_id, kind, hold, account, credit, micro_usd, tokens, ms FROM entries;
"""


def prepare(db: apsw.Connection, path: Path | str) -> None:
    """Make a new file a store, and an old store a new one. Raises `StoreError` for one of a newer program."""
    require_sound()
    if _version(db) != VERSION:
        db.execute("BEGIN IMMEDIATE")
        try:
            match _version(db):  # again: another program may have been faster
                case None:
                    db.execute(META + JOURNAL + RECORDS + LEDGER)
                case 1:
                    from_v1(db, LEDGER)
                    from_v2(db, JOURNAL + RECORDS)
                case 2:
                    from_v2(db, JOURNAL + RECORDS)
                case _:
                    pass
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
    version = _version(db)
    if version != VERSION:
        raise StoreError(f"{path}: written by a newer program (version {version}, this one reads {VERSION}); upgrade")


def require_sound() -> None:
    """Raises `StoreError` where apsw was built with a SQLite that can lose what was committed."""
    version = apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")) < SQLITE:
        least = ".".join(map(str, SQLITE))
        raise StoreError(f"SQLite {version} can lose committed rows, {least} does not; `pip install --upgrade apsw`")


def _version(db: apsw.Connection) -> int | None:
    known = db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'").get
    return int(db.execute("SELECT version FROM meta").get) if known else None
