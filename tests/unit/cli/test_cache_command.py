"""`swarm cache`: what is kept, and clearing it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from protocols.money import Amount, Limit
from protocols.records import RunRecord
from swarm.cli.cache import app
from swarm.dispatch.cache.kept import Answers, Kept
from swarm.dispatch.cache.scope import scope
from swarm.errors import SwarmError
from swarm.state.sqlite import SqliteStore


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store with a run of `shop`, which has kept two answers of one step and one of another, one of a tenant's."""
    path = tmp_path / "store.db"

    async def fill() -> None:
        kept = await SqliteStore.open(path)
        await kept.begin(RunRecord(id="r-1", swarm="shop", plan_hash="h", started=1.0), Limit())
        answer = Kept(output={"label": "a"}, tier="head", confidence=0.9, run="r-1", task="t-1",
                      cost=Amount(tokens=50, micro_usd=7), at=1_000_000_000.0)  # fmt: skip
        for step, key in (("intent", "1"), ("intent", "2"), ("urgency", "1")):
            await Answers(kept.caches, scope(None, "shop")).keep(step, key, answer)
        await Answers(kept.caches, scope("acme", "shop")).keep("intent", "1", answer)
        await kept.close()

    asyncio.run(fill())
    return str(path)


def told(*args: str) -> str:
    result = CliRunner().invoke(app, list(args), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_it_says_what_each_step_has_kept(store: str) -> None:
    """How many answers since when, and what they cost."""
    lines = told("stats", "--store", store).splitlines()
    assert lines[0] == "shop  intent  2 answers since 2001-09-09 01:46 UTC, which took 100 tokens"
    assert len(lines) == 2
    facts = json.loads(told("stats", "--store", store, "--step", "urgency", "--json"))
    assert (facts["answers"], facts["micro_usd"], facts["step"]) == (1, 7, "urgency")


def test_a_step_a_swarm_or_all_can_be_cleared(store: str) -> None:
    """Just what was named; the tenant's own only where he is named."""
    assert told("clear", "--store", store, "--step", "intent") == "2 answers forgotten\n"
    assert told("stats", "--store", store).count("\n") == 1
    assert told("clear", "--store", store, "--swarm", "shop") == "1 answer forgotten\n"
    assert told("stats", "--store", store) == "nothing is kept\n"
    assert told("clear", "--store", store, "--tenant", "acme") == "1 answer forgotten\n"


def test_without_a_store_it_says_where_it_looked(tmp_path: Path) -> None:
    """And how one comes about."""
    with pytest.raises(SwarmError, match="no store there; `swarm run` makes it"):
        told("stats", "--store", str(tmp_path / "none.db"))
