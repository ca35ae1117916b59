"""Looks through a SQLite file for what has changed on disk by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import apsw

from swarm.errors import StoreError
from swarm.state.records import title
from swarm.state.seals import BROKEN, seal
from swarm.state.sqlite_records import Does

_JOURNAL = (("attempt", "attempts", "id"), ("the result of", "results", "task"), ("task", "tasks", "id"))
Look = Callable[[apsw.Connection], Iterable[str]]


async def looked(file: Does, *looks: Look) -> list[str]:
    """What all of them find; what keeps one from looking is found too."""
    problems: list[str] = []
    for look in looks:
        try:
            problems += await file.do(_all(look))
        except StoreError as e:
            problems.append(str(e))
    return list(dict.fromkeys(problems))


def _all(look: Look) -> Callable[[apsw.Connection], list[str]]:
    return lambda db: list(look(db))


def damage(db: apsw.Connection) -> Iterable[str]:
    """The file itself: pages, indexes, constraints."""
    for (said,) in _rows(db, "PRAGMA integrity_check"):
        if said != "ok":
            yield f"the file is damaged: {said}"


def broken_journal(db: apsw.Connection) -> Iterable[str]:
    for what, table, id in (
        ("attempt", "attempts", "id"),
        ("the result of", "results", "task"),
        ("task", "tasks", "id"),
    ):
        for name, body, digest in _rows(db, f"SELECT {id}, body, digest FROM {table}"):
            if seal(body) != digest:
                yield f"{what} {name!r}: {BROKEN}"


def broken_records(db: apsw.Connection) -> Iterable[str]:
    for kind, scope, key, body, digest in _rows(db, "SELECT kind, scope, key, body, digest FROM records"):
        if seal(body) != digest:
            yield f"{title((kind, scope, key))}: {BROKEN}"


def _rows(db: apsw.Connection, query: str) -> Iterable[tuple[Any, ...]]:
    rows: Iterable[tuple[Any, ...]] = db.execute(query)
    return rows
