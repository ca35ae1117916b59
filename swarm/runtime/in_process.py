"""Hosts in this process, on the dispatcher's own event loop."""

from __future__ import annotations

from protocols.control import HostSpec, Ready
from swarm.bus.base import Link
from swarm.bus.local import LocalLink
from swarm.runtime.host import Host
from swarm.runtime.workshop import Workshop


class InProcessRuntime:
    """The runtime of laptops and tests: nothing to start, nothing to serialise."""

    async def start(self, spec: HostSpec) -> tuple[Link, Ready]:
        host = Host(spec, await Workshop.open(spec), node="this process")
        return LocalLink(spec.host, host), host.ready

    async def close(self) -> None:
        """Nothing was started besides the hosts."""
