"""What the store looks like in PostgreSQL: the tables of SQLite's, in the first schema of the address's search path."""

from __future__ import annotations

import psycopg

from swarm.errors import StoreError

VERSION = 3  # counts with SQLite's, so that one number says what a program can read
_LOCK = 0x5A4D1E7  # nobody else makes the tables meanwhile

# The CHECKs state the ledger's invariant, as in swarm/state/schema.py.
_LEDGER = """
CREATE TABLE accounts (
  id TEXT COLLATE "C" PRIMARY KEY, run TEXT NOT NULL, parent TEXT COLLATE "C" REFERENCES accounts(id),
  limit_micro_usd BIGINT, limit_tokens BIGINT, limit_ms BIGINT,
  settled_micro_usd BIGINT NOT NULL CHECK (settled_micro_usd >= 0),
  settled_tokens BIGINT NOT NULL CHECK (settled_tokens >= 0), settled_ms BIGINT NOT NULL CHECK (settled_ms >= 0),
  held_micro_usd BIGINT NOT NULL CHECK (held_micro_usd >= 0),
  held_tokens BIGINT NOT NULL CHECK (held_tokens >= 0), held_ms BIGINT NOT NULL CHECK (held_ms >= 0),
  overrun_micro_usd BIGINT NOT NULL, overrun_tokens BIGINT NOT NULL, overrun_ms BIGINT NOT NULL,
  CHECK (limit_micro_usd IS NULL OR settled_micro_usd + held_micro_usd <= limit_micro_usd),
  CHECK (limit_tokens IS NULL OR settled_tokens + held_tokens <= limit_tokens),
  CHECK (limit_ms IS NULL OR settled_ms + held_ms <= limit_ms)
);
CREATE TABLE holds (
  id TEXT COLLATE "C" PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('attempt', 'lease', 'drawn')),
  account TEXT COLLATE "C" NOT NULL REFERENCES accounts(id), owner TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('held', 'sent', 'settled', 'void')),
  micro_usd BIGINT NOT NULL CHECK (micro_usd >= 0), tokens BIGINT NOT NULL CHECK (tokens >= 0),
  ms BIGINT NOT NULL CHECK (ms >= 0),
  charged_micro_usd BIGINT NOT NULL, charged_tokens BIGINT NOT NULL, charged_ms BIGINT NOT NULL,
  overrun_micro_usd BIGINT NOT NULL, overrun_tokens BIGINT NOT NULL, overrun_ms BIGINT NOT NULL,
  run TEXT NOT NULL
);
CREATE INDEX open_holds ON holds (run) WHERE state IN ('held', 'sent');
CREATE TABLE keys (verb TEXT NOT NULL, key TEXT NOT NULL, digest BYTEA NOT NULL, PRIMARY KEY (verb, key));
CREATE TABLE owners (id TEXT PRIMARY KEY, beats BIGINT NOT NULL);
CREATE TABLE entries (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, transaction_id BIGINT NOT NULL, kind TEXT NOT NULL,
  hold TEXT NOT NULL, account TEXT COLLATE "C" NOT NULL, debit TEXT NOT NULL, credit TEXT NOT NULL,
  micro_usd BIGINT NOT NULL CHECK (micro_usd >= 0), tokens BIGINT NOT NULL CHECK (tokens >= 0),
  ms BIGINT NOT NULL CHECK (ms >= 0)
);
CREATE SEQUENCE transactions;
CREATE FUNCTION entries_are_only_added() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'entries are only added' USING ERRCODE = 'integrity_constraint_violation'; END $$;
CREATE TRIGGER entries_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
  FOR EACH STATEMENT EXECUTE FUNCTION entries_are_only_added();
CREATE VIEW legs AS
  SELECT transaction_id, kind, hold, account, debit AS part, -micro_usd AS micro_usd, -tokens AS tokens, -ms AS ms
    FROM entries
  UNION ALL
  SELECT transaction_id, kind, hold, account, credit, micro_usd, tokens, ms FROM entries;
"""

_JOURNAL = """
CREATE TABLE meta (version INTEGER NOT NULL);
CREATE TABLE runs (
  id TEXT PRIMARY KEY, swarm TEXT NOT NULL, plan_hash TEXT NOT NULL, started DOUBLE PRECISION NOT NULL,
  finished DOUBLE PRECISION, about TEXT NOT NULL
);
CREATE TABLE attempts (
  id TEXT COLLATE "C" PRIMARY KEY, run TEXT NOT NULL, body BYTEA NOT NULL, digest BYTEA NOT NULL
);
CREATE INDEX attempts_of_run ON attempts (run);
CREATE TABLE results (
  task TEXT COLLATE "C" PRIMARY KEY, run TEXT NOT NULL, status TEXT NOT NULL, body BYTEA NOT NULL,
  digest BYTEA NOT NULL
);
CREATE INDEX results_of_run ON results (run);
CREATE TABLE tasks (
  place BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id TEXT NOT NULL, run TEXT NOT NULL, body BYTEA NOT NULL,
  digest BYTEA NOT NULL
);
CREATE INDEX tasks_of_run ON tasks (run);
"""


def _records(table: str) -> str:
    return f"""
CREATE TABLE {table} (
  kind TEXT NOT NULL, scope TEXT NOT NULL, key TEXT COLLATE "C" NOT NULL, body BYTEA NOT NULL, digest BYTEA NOT NULL,
  at DOUBLE PRECISION NOT NULL, expires DOUBLE PRECISION, PRIMARY KEY (kind, scope, key)
);
CREATE INDEX expiring_{table} ON {table} (expires) WHERE expires IS NOT NULL;
"""


async def prepare(db: psycopg.AsyncConnection, shown: str) -> None:
    """Make an empty schema a store. Raises `StoreError` for a store of a newer program; `shown` names the database."""
    async with db.transaction():
        await db.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        if await _version(db) is None:
            await db.execute((_JOURNAL + _LEDGER + _records("records") + _records("caches")).encode())
            await db.execute("INSERT INTO meta VALUES (%s)", (VERSION,))
        version = await _version(db)
    if version != VERSION:
        raise StoreError(f"{shown}: written by a newer program (version {version}, this one reads {VERSION}); upgrade")


async def _version(db: psycopg.AsyncConnection) -> int | None:
    known = await (await db.execute("SELECT to_regclass('meta') IS NOT NULL")).fetchone()
    if known is None or not known[0]:
        return None
    row = await (await db.execute("SELECT version FROM meta")).fetchone()
    return None if row is None else int(row[0])
