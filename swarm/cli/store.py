"""`swarm store check`: does the ledger follow from its entries, and is everything as it was written?"""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from swarm.cli.options import existing

app = typer.Typer(help="The store of ledger, journal and records.", no_args_is_help=True)

Place = Annotated[str | None, typer.Argument(help="A file or postgresql://… [default: in the cache folder]")]


@app.callback()
def _commands() -> None:
    """What stands before a command; with it a lone command keeps its name."""


@app.command()
def check(place: Place = None) -> None:
    """Replay the ledger and compare balances, verify all checksums; a line for each problem, exit code 1 for any."""
    problems = asyncio.run(_problems(existing(place)))
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise typer.Exit(1)
    typer.echo("fine: the balances follow from the entries, and every checksum fits")


async def _problems(where: str) -> list[str]:
    from swarm.state.store import open_store

    store = await open_store(where)
    try:
        return await store.problems()
    finally:
        await store.close()
