"""The seam to wherever hosts run."""

from __future__ import annotations

from typing import Protocol

from protocols.control import HostSpec, Ready
from swarm.bus.base import Link


class Runtime(Protocol):
    """Starts hosts. `start` may be called again for a host that has died."""

    async def start(self, spec: HostSpec) -> tuple[Link, Ready]:
        """A host with its models loaded and calibrated. Raises `LaunchError`, `ModelError`, `PackError`."""
        ...

    async def close(self) -> None:
        """End what this runtime itself has started, apart from the hosts (their links close those)."""
        ...
