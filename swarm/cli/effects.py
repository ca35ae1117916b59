"""`swarm effects`: what a run has written to the world outside, and settling what nobody knows about."""

from __future__ import annotations

import asyncio
import json as jsonlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from protocols.answers import Answer, Failed
from swarm.cli.options import Json, StorePlace, existing
from swarm.errors import SwarmError

if TYPE_CHECKING:
    from swarm.dispatch.outbox import Effect, Outbox
    from swarm.state.base import Store

    Found = dict[str, tuple[float, Effect]]

SHOWN = 12  # characters of a key; any beginning that only one has will do


def effects(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run, as `swarm runs` lists it, that nobody works on now.")
    ],
    done: Annotated[str | None, typer.Option("--done", metavar="KEY", help="This write was done.")] = None,
    output: Annotated[str, typer.Option("--output", help="With --done: what its tool has put out, as JSON.")] = "{}",
    retry: Annotated[str | None, typer.Option("--retry", metavar="KEY", help="Make this write again, now.")] = None,
    store: StorePlace = None,
    json: Json = False,
) -> None:
    """List what a run has written to the world outside; settle a write of which nobody knows whether it was done."""
    if done is not None and retry is not None:
        raise SwarmError("--done and --retry are two ways to settle a write; give one of them")
    for line in asyncio.run(_done(existing(store), run, done, retry, output, json)):
        typer.echo(line)


async def _done(path: str, run: str, done: str | None, retry: str | None, output: str, as_json: bool) -> list[str]:
    """Lines to print."""
    from swarm.dispatch.outbox import Outbox
    from swarm.state.base import unknown_run
    from swarm.state.store import open_store

    store = await open_store(path)
    try:
        if await store.run(run) is None:
            raise unknown_run(run)
        outbox = Outbox(store.records, run)
        found = await outbox.all()
        if done is not None:
            return [await _settle(outbox, _open(found, run, done), found, output)]
        if retry is not None:
            return [await _again(store, run, _open(found, run, retry))]
        return list(_json(found) if as_json else _table(found))
    finally:
        await store.close()


async def _settle(outbox: Outbox, key: str, found: Found, output: str) -> str:
    from swarm.dispatch.effects import settled

    try:
        said: dict[str, Any] = msgspec.json.decode(output, type=dict[str, Any])
    except msgspec.DecodeError as e:
        raise SwarmError(f"--output is no JSON object: {e}") from e
    await outbox.put(key, settled(found[key][1], said))
    return f"{key[:SHOWN]}: done, as you say"


async def _again(store: Store, run: str, key: str) -> str:
    from swarm.runtime.redo import redo

    match await redo(store, run, key):
        case Answer(output=output):
            return f"{key[:SHOWN]}: done now: {jsonlib.dumps(output, ensure_ascii=False)}"
        case Failed(reason=reason, detail=detail):
            raise SwarmError(f"{key[:SHOWN]}: {reason}: {detail}")


def _open(found: Found, run: str, wanted: str) -> str:
    """The key that begins so, of a write that a person may settle."""
    keys = [key for key in found if key.startswith(wanted)]
    if len(keys) != 1:
        many = f"{len(keys):,} effects" if keys else "no effect"
        raise SwarmError(f"run {run!r} has {many} whose key begins with {wanted!r}; `swarm effects {run}` lists all")
    _, effect = found[keys[0]]
    if not effect.is_open:
        raise SwarmError(f"effect {keys[0][:SHOWN]} is {effect.state}; only one of which nobody knows can be settled")
    return keys[0]


def _table(found: Found) -> Iterator[str]:
    for key, (at, effect) in found.items():
        when = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        why = effect.why or (effect.reply.detail if isinstance(effect.reply, Failed) else "")
        told = f"  {why}" if why else ""
        given = jsonlib.dumps(effect.input, ensure_ascii=False)
        yield f"{key[:SHOWN]}  {when}  {effect.state:8}  {effect.step} of {effect.task}  {given}{told}"


def _json(found: Found) -> Iterator[str]:
    for key, (at, effect) in found.items():
        plain: dict[str, Any] = msgspec.to_builtins(effect)
        yield jsonlib.dumps({"key": key, "at": at, **plain}, ensure_ascii=False)
