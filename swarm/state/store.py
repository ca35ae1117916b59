"""Which engine keeps a store: plain objects for ":memory:", else one SQLite file."""

from __future__ import annotations

from pathlib import Path

from swarm.state.base import Store
from swarm.state.memory import MemoryStore
from swarm.state.sqlite import SqliteStore


async def open_store(path: Path | str) -> Store:
    """Raises `StoreError` for a file that cannot be used, or is of a newer program."""
    return MemoryStore() if str(path) == ":memory:" else await SqliteStore.open(path)
