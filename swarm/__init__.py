"""Swarms of small local specialists under one budget, escalating only the hard subtasks.

    import swarm

    with swarm.launch("configs/triage.yaml") as s:
        result = s.run_sync({"text": "My card was stolen, please block it!"})
        print(result.output, result.why)
        print(s.receipt())

`load` reads and checks a swarm file, `launch` starts it, `connect` finds one that was left running. Everything else is
reached through the `Swarm`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swarm import errors
from swarm.errors import SwarmError

if TYPE_CHECKING:
    from swarm.config import SwarmFile, load
    from swarm.runtime.launch import connect, launch
    from swarm.runtime.swarm import Swarm

__all__ = ["Swarm", "SwarmError", "SwarmFile", "connect", "errors", "launch", "load"]
__version__ = "0.1.0"

_LATER = {
    "load": "swarm.config",
    "SwarmFile": "swarm.config",
    "launch": "swarm.runtime.launch",
    "connect": "swarm.runtime.launch",
    "Swarm": "swarm.runtime.swarm",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import swarm` is quick."""
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'swarm' has no attribute {name!r}")
