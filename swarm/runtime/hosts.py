"""The hosts of one run."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from protocols.control import Calibration, HostSpec, Ready
from protocols.ids import HostId
from swarm.bus.asks import Keep
from swarm.bus.base import Link
from swarm.bus.bus import Bus
from swarm.runtime.base import Runtime
from swarm.runtime.placement import LOCAL, serves


class Hosts:
    """The hosts of a run: starts them, replaces one that died, knows where each is.

    `room`: the most asks that may wait for one of them. `keep` gets every message that was given up on.
    """

    def __init__(
        self,
        specs: list[HostSpec],
        runtime: Runtime,
        local: Runtime,
        *,
        room: int | None = None,
        keep: Keep | None = None,
    ) -> None:
        self.ready: dict[HostId, Ready] = {}
        self._specs = {spec.host: spec for spec in specs}
        self._runtime = runtime
        self._local = local
        self._room = room
        self._keep = keep

    async def start(self, owned: AsyncExitStack) -> Bus:
        """Start every host, the first alone: it pays for what the others then find fitted."""
        hosts = list(self._specs)
        opened = [await self._open(host, owned) for host in hosts[:1]]
        others = await asyncio.gather(*(self._open(host, owned) for host in hosts[1:]), return_exceptions=True)
        links = [*opened, *(_or_raised(other) for other in others)]  # all are open or failed: none is left behind
        serving = [(link, serves(self._specs[link.host])) for link in links]
        bus = Bus(serving, self._start, room=self._room, keep=self._keep)
        return await owned.enter_async_context(bus)

    def calibrations(self) -> dict[str, Calibration]:
        """Of every `specialist/tier` that has learnt one."""
        return {name: c for ready in self.ready.values() for name, c in ready.calibrations.items()}

    def models(self) -> dict[str, str]:
        """Of every tier with a model, the sha256 of its weights."""
        return {tier: sha256 for ready in self.ready.values() for tier, sha256 in ready.models.items()}

    async def _open(self, host: HostId, owned: AsyncExitStack) -> Link:
        link = await self._start(host)
        owned.push_async_callback(link.close)
        return link

    async def _start(self, host: HostId) -> Link:
        runtime = self._local if host == LOCAL else self._runtime
        link, self.ready[host] = await runtime.start(self._specs[host])
        return link


def _or_raised(link: Link | BaseException) -> Link:
    if isinstance(link, BaseException):
        raise link
    return link
