"""A link to a host in this process: no bytes, the same rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from protocols.control import Health, Overloaded
from protocols.envelope import Envelope
from protocols.ids import HostId


class Mailbox(Protocol):
    """What a link needs of a host (`swarm.runtime.host.Host`)."""

    def deliver(self, batch: Sequence[Envelope]) -> list[Overloaded]: ...

    async def collect(self) -> list[Envelope]: ...

    def health(self) -> Health: ...

    def close(self) -> None: ...


class LocalLink:
    """Calls the host directly on the event loop that both share."""

    def __init__(self, host: HostId, mailbox: Mailbox) -> None:
        self.host = host
        self._mailbox = mailbox

    async def deliver(self, batch: Sequence[Envelope]) -> list[Overloaded]:
        return self._mailbox.deliver(batch)

    async def collect(self) -> list[Envelope]:
        return await self._mailbox.collect()

    async def health(self) -> Health:
        return self._mailbox.health()

    async def close(self) -> None:
        self._mailbox.close()
