"""Looks through a PostgreSQL store: books that do not follow from their entries, bodies that have changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg

from swarm.state.audit import audit, summed
from swarm.state.postgres.page import Page
from swarm.state.records import title
from swarm.state.seals import BROKEN, seal

_SUMS = "SELECT account, part, sum(micro_usd), sum(tokens), sum(ms) FROM legs GROUP BY account, part"
_SEALED: dict[str, tuple[str, Callable[..., str]]] = {
    "attempts": ("id", lambda id: f"attempt {id!r}"),
    "results": ("task", lambda task: f"the result of {task!r}"),
    "tasks": ("id", lambda id: f"task {id!r}"),
    "records": ("kind, scope, key", lambda *name: title(name)),
    "caches": ("kind, scope, key", lambda *name: title(name)),
}


async def books(db: psycopg.AsyncConnection) -> list[str]:
    """At one moment, however much others write meanwhile."""
    await db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    page = Page("", lambda: 0.0)
    await page.read_all(db)
    rows = await (await db.execute(_SUMS)).fetchall()
    sums = summed((account, part, (int(money), int(tokens), int(ms))) for account, part, money, tokens, ms in rows)
    return audit(page.accounts(), sums, page.open_holds())


async def broken(db: psycopg.AsyncConnection) -> list[str]:
    found = []
    for table, (names, told) in _SEALED.items():
        async for *name, body, digest in _stream(db, f"SELECT {names}, body, digest FROM {table}"):
            if seal(body) != digest:
                found.append(f"{told(*name)}: {BROKEN}")
    return found


async def _stream(db: psycopg.AsyncConnection, query: str) -> AsyncIterator[tuple[Any, ...]]:
    async with db.cursor(name="sealed") as rows:
        await rows.execute(query.encode())
        async for row in rows:
            yield row
