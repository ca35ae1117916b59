"""SIGKILL before and after hold, sent, answer and settle: the books are right, and nothing that was billed is missing.

`SWARM_KILL_SEEDS` says with how many seeds each point is tried, on each engine.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import ledger_killed
import pytest
from ledger_books import Books, opened
from postgres_server import Server

from protocols.money import Amount

SEEDS = {engine: int(os.environ.get("SWARM_KILL_SEEDS", few)) for engine, few in (("sqlite", "3"), ("postgres", "1"))}


@dataclass(frozen=True)
class Killed:
    """What every killed program has left. `address`: of the server, up to the name of a schema."""

    folder: Path
    seeds: int
    address: str


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    server: Server | None = request.getfixturevalue("postgres") if request.param == "postgres" else None
    address = server.url("") if server is not None else ""
    killed = Killed(tmp_path_factory.mktemp("killed"), SEEDS[request.param], address)
    command = [sys.executable, ledger_killed.__file__, str(killed.folder), str(killed.seeds), *filter(None, [address])]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=3000)
    ends = [line.split() for line in made.stdout.splitlines()]
    assert len(ends) == len(ledger_killed.KINDS) * len(ledger_killed.POINTS) * killed.seeds
    assert {end for *_, end in ends} == {"-9"}, "every program came to its point"
    if server is not None:
        _at_rest(server)
    return killed


@pytest.mark.parametrize("kind", ledger_killed.KINDS)
@pytest.mark.parametrize("point", ledger_killed.POINTS)
def test_a_kill_at_any_point_overspends_nothing_and_hides_nothing(killed: Killed, point: str, kind: str) -> None:
    """No limit is broken, entries and balances agree, what was sent is charged in full, and no hold is left."""
    for seed in range(killed.seeds):
        name = ledger_killed.name_of(kind, point, seed)
        bills = _bills(killed.folder / f"{name}.bills")
        asyncio.run(look_at(ledger_killed.place_of(killed.folder, name, killed.address), bills, kind))


async def look_at(place: str, bills: dict[str, tuple[int, int]], kind: str) -> None:
    store = await opened(place)
    books = Books(place)
    await store.check()
    books.check()
    states = dict(books.query("SELECT id, state FROM holds WHERE kind <> 'lease'"))
    amounts = {id: (tokens, usd) for id, tokens, usd in books.query("SELECT id, tokens, micro_usd FROM holds")}
    charged = _charged(books)
    before = await store.balance("run:r-1")

    ((owner,),) = books.query("SELECT DISTINCT owner FROM holds") or [("nobody",)]
    await store.recover(owner=owner)
    await store.check()
    books.check()
    run = await store.balance("run:r-1")
    assert run.held == Amount(), "no hold outlives its time"
    assert books.query("SELECT id FROM holds WHERE state IN ('held', 'sent')") == []
    assert run.settled.tokens >= sum(tokens for tokens, _ in bills.values())
    assert run.settled.micro_usd >= sum(usd for _, usd in bills.values())
    if kind == "plain":
        assert set(bills) <= set(states), "nothing left without a hold"
        for id, now in _charged(books).items():
            expected = {"held": (0, 0), "sent": amounts[id]}.get(states[id], charged[id])
            assert now == expected, (id, states[id])
        assert all(states[id] != "held" for id in bills), "what has left was marked before"
    else:
        assert run.settled == before.settled + before.held, "nobody knows what the lease has bought: all of it counts"
    assert (await store.balance("tenant:acme")).settled == run.settled
    books.close()
    await store.close()


def _at_rest(server: Server) -> None:
    """What the killed have asked of the server last may still be done."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    until = time.monotonic() + 30
    while server.execute(asked) != [(0,)]:
        assert time.monotonic() < until, "somebody is still at the server"
        time.sleep(0.05)


def _bills(file: Path) -> dict[str, tuple[int, int]]:
    lines = file.read_text().splitlines() if file.exists() else []
    return {id: (int(tokens), int(usd)) for id, tokens, usd in map(str.split, lines)}


def _charged(books: Books) -> dict[str, tuple[int, int]]:
    rows = books.query("SELECT id, charged_tokens, charged_micro_usd FROM holds WHERE kind <> 'lease'")
    return {id: (tokens, usd) for id, tokens, usd in rows}
