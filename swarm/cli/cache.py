"""`swarm cache`: the answers that steps use again, and clearing them."""

from __future__ import annotations

import asyncio
import json as jsonlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from swarm.cli.options import Json, StorePlace, existing
from swarm.dispatch.cache.scope import scope

if TYPE_CHECKING:
    from swarm.dispatch.cache.shelves import Shelf

app = typer.Typer(help="Answers that steps use again, across tasks and runs.", no_args_is_help=True)

SwarmName = Annotated[str | None, typer.Option("--swarm", help="Only of this swarm. [default: all that ran]")]
StepName = Annotated[str | None, typer.Option("--step", help="Only of this step.")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Of this tenant. [default: of runs without one]")]


@app.command()
def stats(
    swarm: SwarmName = None, step: StepName = None, tenant: Tenant = None, store: StorePlace = None, json: Json = False
) -> None:
    """Say what each step has kept, and what is promised of its reuses."""
    found = asyncio.run(_over(existing(store), Meant(swarm, step, tenant), clear=False))
    for shelf in found:
        typer.echo(jsonlib.dumps(shelf.facts()) if json else str(shelf))
    if not found and not json:
        typer.echo("nothing is kept")


@app.command()
def clear(swarm: SwarmName = None, step: StepName = None, tenant: Tenant = None, store: StorePlace = None) -> None:
    """Forget the answers of a step, of a swarm, or of all swarms. What is promised begins anew."""
    found = asyncio.run(_over(existing(store), Meant(swarm, step, tenant), clear=True))
    answers = sum(shelf.answers for shelf in found)
    typer.echo(f"{answers:,} {'answer' if answers == 1 else 'answers'} forgotten")


@dataclass(frozen=True, slots=True)
class Meant:
    """What the options name; None: all."""

    swarm: str | None
    step: str | None
    tenant: str | None


async def _over(where: str, meant: Meant, *, clear: bool) -> list[Shelf]:
    """The shelves that are meant, as they were before they were cleared."""
    from swarm.dispatch.cache.shelves import cleared, shelves
    from swarm.state.store import open_store

    kept = await open_store(where)
    try:
        found = []
        for name in [meant.swarm] if meant.swarm is not None else sorted({run.swarm for run in await kept.runs()}):
            of = scope(meant.tenant, name)
            found += [shelf for shelf in await shelves(kept.caches, name, of) if meant.step in (None, shelf.step)]
            if clear:
                await cleared(kept.caches, of, meant.step)
        return found
    finally:
        await kept.close()
