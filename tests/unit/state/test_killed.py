"""SIGKILL before and after hold, sent, answer and settle: the books are right, and nothing that was billed is missing.

`SWARM_KILL_SEEDS` says with how many seeds each point is tried.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import ledger_killed
import pytest
from ledger_books import Books

from protocols.money import Amount
from swarm.state.sqlite import SqliteStore

SEEDS = int(os.environ.get("SWARM_KILL_SEEDS", "3"))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what every killed program has left."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, ledger_killed.__file__, str(folder), str(SEEDS)]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=3000)
    ends = [line.split() for line in made.stdout.splitlines()]
    assert len(ends) == len(ledger_killed.KINDS) * len(ledger_killed.POINTS) * SEEDS
    assert {end for *_, end in ends} == {"-9"}, "every program came to its point"
    return folder


@pytest.mark.parametrize("kind", ledger_killed.KINDS)
@pytest.mark.parametrize("point", ledger_killed.POINTS)
def test_a_kill_at_any_point_overspends_nothing_and_hides_nothing(killed: Path, point: str, kind: str) -> None:
    """No limit is broken, entries and balances agree, what was sent is charged in full, and no hold is left."""
    for seed in range(SEEDS):
        asyncio.run(look_at(killed / f"{kind}-{point}-{seed}.db", kind))


async def look_at(path: Path, kind: str) -> None:
    bills = _bills(path)
    store = await SqliteStore.open(path)
    books = Books(path)
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


def _bills(path: Path) -> dict[str, tuple[int, int]]:
    file = path.with_suffix(".bills")
    lines = file.read_text().splitlines() if file.exists() else []
    return {id: (int(tokens), int(usd)) for id, tokens, usd in map(str.split, lines)}


def _charged(books: Books) -> dict[str, tuple[int, int]]:
    rows = books.query("SELECT id, charged_tokens, charged_micro_usd FROM holds WHERE kind <> 'lease'")
    return {id: (tokens, usd) for id, tokens, usd in rows}
