"""What swarms remember can be seen and forgotten."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from protocols.money import Limit
from protocols.records import RunRecord
from swarm.cli.memory import app
from swarm.dispatch.cache.scope import scope
from swarm.dispatch.memory.note import Note
from swarm.dispatch.memory.notebook import Notebook
from swarm.errors import SwarmError
from swarm.state.store import open_store

KEPT = [(None, "shop", "ann"), (None, "shop", "annette"), (None, "desk", "ann"), ("acme", "shop", "ann")]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with notes of two swarms, and of one tenant's."""

    async def make() -> None:
        kept = await open_store(tmp_path / "store.db")
        for i, swarm in enumerate(("shop", "desk", "shop")):
            await kept.begin(RunRecord(id=f"r-{i}", swarm=swarm, plan_hash="h", started=1.0), Limit())
        for tenant, swarm, key in KEPT:
            note = Note(task="t-1", step="reply", asked=f"from {tenant}", answered=f"to {key}")
            await Notebook(kept.records, scope(tenant, swarm)).put(key, note)
        await kept.close()

    asyncio.run(make())
    return tmp_path / "store.db"


def said(store: Path, *arguments: str) -> list[str]:
    done = CliRunner().invoke(app, [*arguments, "--store", str(store)])
    assert done.exit_code == 0, done.exception
    return done.output.splitlines()


def listed(store: Path, *arguments: str) -> list[tuple[str, str]]:
    lines = (json.loads(line) for line in said(store, "list", "--json", *arguments))
    return [(line["swarm"], line["key"]) for line in lines]


def test_notes_are_listed_by_swarm_and_key(store: Path) -> None:
    """All swarms, one swarm, one key; a tenant's notes only where he is named."""
    assert listed(store) == [("desk", "ann"), ("shop", "ann"), ("shop", "annette")]
    assert listed(store, "--swarm", "shop") == [("shop", "ann"), ("shop", "annette")]
    assert listed(store, "--key", "ann") == [("desk", "ann"), ("shop", "ann")]
    assert listed(store, "--tenant", "acme") == [("shop", "ann")]
    assert said(store, "list", "--tenant", "acme")[0].endswith("reply: from acme → to ann")


def test_key_is_forgotten_in_all_swarms_and_nothing_else_is(store: Path) -> None:
    """A longer key, and the same key of a tenant, stay."""
    assert said(store, "forget", "--key", "ann") == ["2 notes forgotten"]
    assert listed(store) == [("shop", "annette")] and listed(store, "--tenant", "acme") == [("shop", "ann")]


def test_swarm_and_tenant_narrow_what_is_forgotten(store: Path) -> None:
    """One swarm's notes, or one tenant's."""
    assert said(store, "forget", "--tenant", "acme", "--key", "ann") == ["1 note forgotten"]
    assert said(store, "forget", "--swarm", "shop") == ["2 notes forgotten"]
    assert listed(store) == [("desk", "ann")] and listed(store, "--tenant", "acme") == []


def test_forgetting_everything_by_a_slip_is_refused(store: Path) -> None:
    """Something must be named."""
    refused = CliRunner().invoke(app, ["forget", "--store", str(store)])
    assert isinstance(refused.exception, SwarmError) and "say what to forget" in str(refused.exception)
    assert len(listed(store)) == 3
