"""Which engine keeps a store: plain objects for ":memory:", PostgreSQL for its address, else one SQLite file."""

from __future__ import annotations

import os
from pathlib import Path

from swarm.config import EnvRef
from swarm.errors import StoreError
from swarm.state.base import Store
from swarm.state.memory import MemoryStore
from swarm.state.sqlite import SqliteStore

SERVERS = ("postgresql://", "postgres://")


def is_address(store: Path | str) -> bool:
    """Whether it is a server's address, and no file."""
    return str(store).startswith(SERVERS)


async def open_store(path: Path | str | EnvRef) -> Store:
    """Raises `StoreError` for a file or a server that cannot be used, or a store of a newer program."""
    path = _read(path) if isinstance(path, EnvRef) else path
    if str(path) == ":memory:":
        return MemoryStore()
    if not is_address(path):
        return await SqliteStore.open(path)
    try:
        from swarm.state.postgres.store import PostgresStore
    except ImportError as e:
        raise StoreError(f"a store in PostgreSQL needs {e.name}; `pip install 'swarmlet[postgres]'`") from None
    return await PostgresStore.open(str(path))


def _read(path: EnvRef) -> str:
    value = os.environ.get(path.name)
    if not value:
        raise StoreError(f"where the store is should stand in the environment variable {path.name}, which is not set")
    return value
