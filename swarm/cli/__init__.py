"""The command `swarm`."""

from swarm.cli.main import main

__all__ = ["main"]
