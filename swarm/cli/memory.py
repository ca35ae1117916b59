"""`swarm memory`: what swarms have noted, and forgetting it."""

from __future__ import annotations

import asyncio
import json as jsonlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from swarm.cli.options import Json, StorePlace, existing
from swarm.errors import SwarmError

if TYPE_CHECKING:
    from swarm.dispatch.memory.notebook import Notebook
    from swarm.state.base import Store

app = typer.Typer(help="Notes that steps have made under a key, across runs.", no_args_is_help=True)

Key = Annotated[str | None, typer.Option("--key", help="Only under this key.")]
SwarmName = Annotated[str | None, typer.Option("--swarm", help="Only of this swarm. [default: all that ran]")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Of this tenant. [default: of runs without one]")]


@app.command("list")
def list_(
    key: Key = None, swarm: SwarmName = None, tenant: Tenant = None, store: StorePlace = None, json: Json = False
) -> None:
    """List the notes, key by key, the oldest first."""
    for line in asyncio.run(_listed(existing(store), swarm, tenant, key, json)):
        typer.echo(line)


@app.command()
def forget(key: Key = None, swarm: SwarmName = None, tenant: Tenant = None, store: StorePlace = None) -> None:
    """Forget all notes under a key, or all of a swarm."""
    if key is None and swarm is None:
        raise SwarmError("say what to forget: --key KEY in all swarms, --swarm NAME with all its keys, or both")
    notes = asyncio.run(_forgotten(existing(store), swarm, tenant, key))
    typer.echo(f"{notes:,} {'note' if notes == 1 else 'notes'} forgotten")


async def _listed(path: str, swarm: str | None, tenant: str | None, key: str | None, as_json: bool) -> list[str]:
    from swarm.state.store import open_store

    store = await open_store(path)
    try:
        lines = []
        for name, notebook in await _notebooks(store, swarm, tenant):
            for under, at, note in await notebook.all():
                if key is None or under == key:
                    lines.append(_line(name, under, at, note.step, note.line, as_json))
        return lines
    finally:
        await store.close()


async def _forgotten(path: str, swarm: str | None, tenant: str | None, key: str | None) -> int:
    from swarm.state.store import open_store

    store = await open_store(path)
    try:
        return sum([await notebook.forget(key) for _, notebook in await _notebooks(store, swarm, tenant)])
    finally:
        await store.close()


async def _notebooks(store: Store, swarm: str | None, tenant: str | None) -> Sequence[tuple[str, Notebook]]:
    """By the swarm's name: the one that is named, or all that the store has runs of."""
    from swarm.dispatch.cache.scope import scope
    from swarm.dispatch.memory.notebook import Notebook

    names = [swarm] if swarm is not None else sorted({run.swarm for run in await store.runs()})
    return [(name, Notebook(store.records, scope(tenant, name))) for name in names]


def _line(swarm: str, key: str, at: float, step: str, text: str, as_json: bool) -> str:
    if as_json:
        return jsonlib.dumps({"swarm": swarm, "key": key, "at": at, "step": step, "note": text}, ensure_ascii=False)
    when = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{swarm}  {key}  {when}  {step}: {text}"
