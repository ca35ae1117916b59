"""What the commands on models share: options, errors in one line, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from swarm.errors import SwarmError
from swarm.models.registry import Registry
from swarm.models.store import ModelStore

OwnRegistry = Annotated[
    list[Path] | None,
    typer.Option(
        "--registry", help="A models.yaml of your own, laid over the shipped one. May be given several times."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def opened_store(registry: list[Path] | None) -> ModelStore:
    """The store of this machine with the user's own registries."""
    return ModelStore(registry=Registry.shipped(*(registry or [])))


@contextmanager
def said_plainly() -> Iterator[None]:
    """An error of ours is one red sentence and exit code 1, not a traceback."""
    try:
        yield
    except SwarmError as e:
        Console(stderr=True).print(f"[red]{escape(str(e))}[/]", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def print_json(value: object) -> None:
    """Print `value` as indented JSON."""
    typer.echo(json.dumps(value, indent=2))
