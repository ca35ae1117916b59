"""The seam under the bus: a link to one host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from protocols.control import Health, Overloaded
from protocols.envelope import Envelope
from protocols.ids import HostId
from swarm.errors import SwarmError


class HostLost(SwarmError):
    """The host at the other end is gone; whatever it had not answered must be asked again."""


class Link(Protocol):
    """A way to one host. Every method raises `HostLost` when the host is gone."""

    host: HostId

    async def deliver(self, batch: Sequence[Envelope]) -> list[Overloaded]:
        """Put messages into the host's mailbox, at once and in order. Returns a refusal for each that did not fit."""
        ...

    async def collect(self) -> list[Envelope]:
        """Wait until the host has answers, and take them. May return none after a while; call it again."""
        ...

    async def health(self) -> Health: ...

    async def close(self) -> None:
        """Let the host end. May be called twice."""
        ...
