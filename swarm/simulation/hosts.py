"""Hosts that answer by a seed, over links that delay, repeat and reorder what they carry."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from protocols.answers import Answer, Ask, Failed, Signals, Usage
from protocols.control import Calibration, Health, HostSpec, Overloaded, Ready
from protocols.envelope import Envelope
from protocols.ids import HostId
from swarm.bus.base import HostLost, Link
from swarm.bus.bus import Bus
from swarm.runtime.host import Host
from swarm.runtime.hosts import Hosts
from swarm.runtime.placement import serves

SLOWEST_S = 0.2  # a message on its way
LONGEST_S = 0.4  # an answer in the making
REPEATED = 0.1  # share of messages that come twice


class SeededWorkshop:
    """Stands where a host's specialists stand. What is answered depends on the task, the step and the tier alone.

    `called` is told of every answer that was made, as a tool that acts on the world would be.
    """

    def __init__(self, seed: int, rng: random.Random, called: Callable[[Ask], None]) -> None:
        self.calibrations: dict[str, Calibration] = {}
        self.model_hashes: dict[str, str] = {}
        self._seed = seed
        self._rng = rng
        self._called = called

    async def answer(self, ask: Ask) -> Answer | Failed:
        await asyncio.sleep(self._rng.uniform(0, LONGEST_S))
        self._called(ask)
        fate = zlib.crc32(f"{self._seed} {ask.input.get('text')} {ask.step} {ask.tier}".encode()) % 100
        usage = Usage(tokens_in=min(20, ask.max_tokens), micro_usd=fate if ask.tier == "remote" else 0)
        if fate < 4:
            return Failed(id=ask.id, reason="error", detail="as drawn", retryable=fate < 2, usage=usage)
        if fate < 6 and ask.tier == "remote":
            return Failed(id=ask.id, reason="timeout", detail="as drawn", unknown=True)
        sure = 0.5 if fate < 40 and ask.tier != "remote" else 0.95
        return Answer(id=ask.id, output={"label": f"{ask.step}-{fate}"}, signals=Signals(p=sure), usage=usage)

    def close(self) -> None:
        """Nothing was opened."""


class BadLink:
    """A link to a host, as a bad network would be. `kill` and `hang` are what befalls the host."""

    def __init__(self, host: Host, rng: random.Random) -> None:
        self.host: HostId = host.spec.host
        self._host = host
        self._rng = rng
        self._dead = False
        self._hung_until = 0.0

    def kill(self) -> None:
        self._dead = True
        self._host.close()

    def hang(self, seconds: float) -> None:
        self._hung_until = asyncio.get_running_loop().time() + seconds

    async def deliver(self, batch: Sequence[Envelope]) -> list[Overloaded]:
        await self._way()
        refused = self._host.deliver(self._garbled(batch))
        await self._way()  # what was delivered may be lost on the way back: the caller cannot know
        return refused

    async def collect(self) -> list[Envelope]:
        await self._way()
        ready = await self._host.collect()
        await self._way()
        return self._garbled(ready)

    async def health(self) -> Health:
        await self._way()
        return self._host.health()

    async def close(self) -> None:
        self.kill()

    async def _way(self) -> None:
        await asyncio.sleep(self._rng.uniform(0, SLOWEST_S))
        now = asyncio.get_running_loop().time()
        if now < self._hung_until:
            await asyncio.sleep(self._hung_until - now)
        if self._dead:
            raise HostLost(f"host {self.host!r} is gone: it died as drawn")

    def _garbled(self, batch: Sequence[Envelope]) -> list[Envelope]:
        carried = [e for envelope in batch for e in [envelope] * (2 if self._rng.random() < REPEATED else 1)]
        self._rng.shuffle(carried)
        return carried


class BadHosts(Hosts):
    """All hosts of a run, replaced when they die."""

    def __init__(self, specs: list[HostSpec], open_: Callable[[HostSpec], Host], rng: random.Random) -> None:
        super().__init__(specs, runtime=None, local=None)  # type: ignore[arg-type]  # nothing real is started
        self._open_host = open_
        self._rng = rng
        self.links: dict[HostId, BadLink] = {}

    async def start(self, owned: AsyncExitStack) -> Bus:
        links = [await self._start(host) for host in self._specs]
        clock = asyncio.get_running_loop().time
        bus = Bus([(link, serves(self._specs[link.host])) for link in links], self._start, clock=clock)
        return await owned.enter_async_context(bus)

    async def _start(self, host: HostId) -> Link:
        await asyncio.sleep(self._rng.uniform(0, SLOWEST_S))
        made = self._open_host(self._specs[host])
        self.ready[host] = Ready(host=host, node="simulated", pid=0)
        self.links[host] = BadLink(made, self._rng)
        return self.links[host]

    def nth(self, n: int) -> BadLink:
        """One of the hosts that are up."""
        return self.links[sorted(self.links)[n % len(self.links)]]


def opener(seed: int, rng: random.Random, called: Callable[[Ask], None]) -> Callable[[HostSpec], Host]:
    """Makes real hosts with a seeded workshop in each."""
    workshop: Any = SeededWorkshop(seed, rng, called)
    return lambda spec: Host(spec, workshop, node="simulated")
