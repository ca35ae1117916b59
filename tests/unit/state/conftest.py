"""The stores that the tests of this folder are about: one suite for all engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ledger_books import RUN, Clock, opened, record
from postgres_server import postgres

from protocols.money import Limit
from swarm.state.base import Store

__all__ = ["postgres"]


@pytest.fixture
def clock() -> Clock:
    """The monotonic clock of the store."""
    return Clock()


@pytest.fixture
def day() -> Clock:
    """The time of day."""
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new store is: an engine each."""
    return _place(request, tmp_path)


@pytest.fixture(params=["sqlite", "postgres"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new store is that outlives a program, and that others may use beside it."""
    return _place(request, tmp_path)


@pytest.fixture
async def store(place: str, clock: Clock, day: Clock) -> AsyncIterator[Store]:
    """A store with one run of at most 100 tokens and one task of at most 80; its books are right in the end."""
    store = await opened(place, clock=clock, now=day)
    await store.begin(record(), Limit(tokens=100))
    await store.accept(RUN, "t-1", Limit(tokens=80))
    yield store
    await store.check()
    await store.close()


def _place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "memory":
            return ":memory:"
        case "sqlite":
            return str(tmp_path / "new" / "folder" / "store.db")
        case _:
            url: str = request.getfixturevalue("postgres").new()
            return url
