"""Looks into a store's file from the outside, and small makers for its tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import psycopg

from protocols.money import Amount, Limit
from protocols.records import Attempt, RunRecord
from protocols.tasks import Result
from swarm.state.memory import MemoryStore
from swarm.state.postgres.store import PostgresStore
from swarm.state.sqlite import SqliteStore
from swarm.state.store import is_address

RUN = "r-1"


def record(run: str = RUN) -> RunRecord:
    return RunRecord(id=run, swarm="s", plan_hash="h", started=1.0, about={"a": 1})


def attempt(id: str, task: str = "t-1", outcome: str = "accepted", **more: Any) -> Attempt:
    return Attempt(id=id, task=task, step="s", tier="small", outcome=outcome, **more)


def result(task: str, **more: Any) -> Result:
    return Result(task=task, status="done", **more)


def tokens(n: int) -> Amount:
    return Amount(tokens=n)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def opened(place: str, **settings: Any) -> Any:
    """The store at `place`: ":memory:", a path, or a server's address. `settings`: clock, now, ttl_s."""
    if place == ":memory:":
        return MemoryStore(**settings)
    return await PostgresStore.open(place, **settings) if is_address(place) else SqliteStore(place, **settings)


def sql(place: str, command: str) -> list[tuple[Any, ...]]:
    """Runs a command on a store from outside, as a program that knows nothing of its rules."""
    if is_address(place):
        with psycopg.connect(place, autocommit=True) as db:
            done = db.execute(command.encode())
            return done.fetchall() if done.description else []
    file = apsw.Connection(place)
    try:
        rows: list[Any] = file.execute(command).fetchall()
        return rows
    finally:
        file.close()


class Books:
    """A second connection to a store, by its file or address: sees what is committed, and nothing else."""

    def __init__(self, place: Path | str) -> None:
        self._db: Any = (
            psycopg.connect(str(place), autocommit=True)
            if is_address(place)
            else apsw.Connection(str(place), flags=apsw.SQLITE_OPEN_READONLY)
        )

    def accounts(self) -> dict[str, tuple[Limit, Amount, Amount]]:
        """Account -> limit, settled, held."""
        rows: list[Any] = self._db.execute(
            "SELECT id, limit_micro_usd, limit_tokens, limit_ms, settled_micro_usd, settled_tokens, settled_ms, "
            "held_micro_usd, held_tokens, held_ms FROM accounts"
        ).fetchall()
        return {
            id: (
                Limit(micro_usd=row[0], tokens=row[1], ms=row[2]),
                Amount(micro_usd=row[3], tokens=row[4], ms=row[5]),
                Amount(micro_usd=row[6], tokens=row[7], ms=row[8]),
            )
            for id, *row in rows
        }

    def overruns(self) -> dict[str, tuple[int, int]]:
        rows: list[Any] = self._db.execute("SELECT id, overrun_micro_usd, overrun_tokens FROM holds").fetchall()
        return {id: (usd, n) for id, usd, n in rows}

    def query(self, query: str) -> list[tuple[Any, ...]]:
        return list(self._db.execute(query).fetchall())

    def check(self) -> None:
        """On every account and in every unit: settled + held ≤ limit, and nothing below zero."""
        for account, (limit, settled, held) in self.accounts().items():
            for most, spent, reserved in (
                (limit.micro_usd, settled.micro_usd, held.micro_usd),
                (limit.tokens, settled.tokens, held.tokens),
                (limit.ms, settled.ms, held.ms),
            ):
                assert spent >= 0, account
                assert reserved >= 0, account
                assert most is None or spent + reserved <= most, account

    def close(self) -> None:
        self._db.close()
