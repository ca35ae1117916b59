"""`swarm dead`: what a run has given up on, and asking it again."""

from __future__ import annotations

import asyncio
import json as jsonlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer

from protocols.answers import Ask
from protocols.records import RunRecord
from swarm.bus.letters import DeadLetter
from swarm.cli.options import Json, StorePlace, existing
from swarm.errors import SwarmError
from swarm.runtime.letters import letters
from swarm.state.store import open_store

app = typer.Typer(help="Messages that a run has given up on: dead letters.", no_args_is_help=True)

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run, as `swarm runs` lists it.")]
LetterId = Annotated[str, typer.Argument(metavar="ID", help="A letter, as `swarm dead list` shows it.")]

Kept = dict[str, tuple[float, DeadLetter]]


@app.command("list")
def list_(run: RunName, store: StorePlace = None, json: Json = False) -> None:
    """List the dead letters of a run, the oldest first."""
    _, kept = asyncio.run(_read(existing(store), run))
    for id, (at, letter) in kept.items():
        typer.echo(jsonlib.dumps(_plain(id, at, letter), ensure_ascii=False) if json else _line(id, at, letter))


@app.command()
def show(run: RunName, id: LetterId, store: StorePlace = None, json: Json = False) -> None:
    """Show what was asked, how often it was delivered, and why it was given up."""
    at, letter = _one(asyncio.run(_read(existing(store), run))[1], run, id)
    if json:
        typer.echo(jsonlib.dumps(_plain(id, at, letter), ensure_ascii=False))
        return
    for line in _told(id, at, letter):
        typer.echo(line)


@app.command()
def retry(run: RunName, id: LetterId, store: StorePlace = None, json: Json = False) -> None:
    """Ask the same again, once, as a run of its own; print the answer. The letter stays."""
    from swarm.runtime.launch import launch

    path = existing(store)
    record, kept = asyncio.run(_read(path, run))
    _, letter = _one(kept, run, id)
    if not isinstance(letter.envelope.body, Ask):
        raise SwarmError(f"letter {id!r} is no question but a stray message; there is nothing to ask again")
    if key := letter.envelope.body.key:
        raise SwarmError(
            f"letter {id!r} is a write, and nobody knows whether it was done; `swarm effects {run} --retry {key[:12]}` "
            "makes it again under its own key"
        )
    if (file := record.about.get("file")) is None:
        raise SwarmError(f"run {run!r} was made without a swarm file, so nobody knows whom to ask again")
    with launch(file, store=path) as swarm:
        result = swarm.retry(letter.envelope.body)
    shown: Any = msgspec.to_builtins(result) if json else result.output or f"{result.status}: {result.reason}"
    typer.echo(shown if isinstance(shown, str) else jsonlib.dumps(shown, ensure_ascii=False))
    if result.status != "done":
        raise typer.Exit(1)


async def _read(path: str, run: str) -> tuple[RunRecord, Kept]:
    store = await open_store(path)
    try:
        record = await store.run(run)
        if record is None:
            raise SwarmError(f"run {run!r} is not in the store; `swarm runs` lists those that are")
        return record, await letters(store.records, run)
    finally:
        await store.close()


def _one(kept: Kept, run: str, id: str) -> tuple[float, DeadLetter]:
    if id not in kept:
        raise SwarmError(
            f"run {run!r} has no dead letter {id!r}; `swarm dead list {run}` shows the {len(kept):,} it has"
        )
    return kept[id]


def _line(id: str, at: float, letter: DeadLetter) -> str:
    body = letter.envelope.body
    about = f"{body.step} / {body.tier} of {body.task}" if isinstance(body, Ask) else type(body).__name__
    return f"{id}  {_time(at)}  {about}  {letter.cause}"


def _told(id: str, at: float, letter: DeadLetter) -> Iterator[str]:
    body, envelope = letter.envelope.body, letter.envelope
    yield f"{id}: given up at {_time(at)}, after {envelope.delivery} deliveries, the last to {envelope.to}"
    yield f"  cause: {letter.cause}"
    if isinstance(body, Ask):
        yield f"  task {body.task}, step {body.step}, tier {body.tier} of {body.specialist}"
        yield f"  input: {jsonlib.dumps(body.input, ensure_ascii=False)}"
    else:
        yield f"  message: {jsonlib.dumps(msgspec.to_builtins(body), ensure_ascii=False)}"


def _plain(id: str, at: float, letter: DeadLetter) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(letter)
    return {"id": id, "at": at, **plain}


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
