"""A link to a host in a Ray actor: batches of envelopes as one bytes argument per call.

Every call is a heartbeat: `collect` is always under way and comes back within a second or so, answers or not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from protocols import codec
from protocols.control import Health, Overloaded
from protocols.envelope import Envelope
from protocols.ids import HostId
from swarm.bus.base import HostLost
from swarm.bus.heartbeat import heard


class RayLink:
    """Speaks to an actor that offers `deliver`, `collect` and `health` over bytes."""

    def __init__(self, host: HostId, actor: Any) -> None:
        self.host = host
        self._actor = actor

    async def deliver(self, batch: Sequence[Envelope]) -> list[Overloaded]:
        replies = codec.decode(await self._call(self._actor.deliver, codec.encode(batch)))
        return [envelope.body for envelope in replies if isinstance(envelope.body, Overloaded)]

    async def collect(self) -> list[Envelope]:
        return codec.decode(await self._call(self._actor.collect))

    async def health(self) -> Health:
        (envelope,) = codec.decode(await self._call(self._actor.health))
        assert isinstance(envelope.body, Health)
        return envelope.body

    async def close(self) -> None:
        with contextlib.suppress(RayError):  # it is gone already, which is what was wanted
            ray.kill(self._actor)

    async def _call(self, method: Any, *args: bytes) -> bytes:
        try:
            return await heard(self.host, method.remote(*args))
        except RayTaskError:
            raise  # the host lives, and says what is wrong
        except RayError as e:
            raise HostLost(f"host {self.host!r} is gone: {str(e).splitlines()[0]}") from e
