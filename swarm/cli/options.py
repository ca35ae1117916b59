"""What several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swarm.errors import StoreError

StorePlace = Annotated[
    str | None, typer.Option("--store", help="The store: a file or postgresql://… [default: in the cache folder]")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def existing(place: str | None) -> str:
    """Where a store is: `place`, or the one in the cache folder. Raises `StoreError` for a file that is not there."""
    from swarm.models.store import default_home
    from swarm.state.store import is_address

    where = place or str(default_home() / "store.db")
    if not is_address(where) and not Path(where).is_file():
        raise StoreError(f"{where}: no store there; `swarm run` makes it, --store names another")
    return where
