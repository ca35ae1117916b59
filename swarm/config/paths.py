"""Paths in a file lead to places beside the file, and nowhere else."""

from __future__ import annotations

from pathlib import Path

from swarm.errors import quote


class Outside(ValueError):
    """The path leads out of its folder or to nothing; the message is the text of a problem."""


def inside(folder: Path, relative: str) -> Path:
    """The resolved path of `relative` below `folder`, symbolic links followed.

    Raises `Outside` when it is absolute, leads elsewhere, or does not exist.
    """
    try:
        path = (folder / relative).resolve()
        if Path(relative).is_absolute() or ".." in Path(relative).parts or not path.is_relative_to(folder.resolve()):
            raise Outside(f"{quote(relative)} leads out of the folder of the file; copy it in")
        if not path.exists():
            raise Outside(f"there is no {quote(relative)} beside the file")
    except (OSError, RuntimeError) as e:
        raise Outside(f"{quote(relative)} cannot be read: {e.__class__.__name__}") from e
    return path
