"""A link to a host in this process: no bytes, the same rules.

A host that can may answer where it is asked (`Desk`): then nothing is put into its mailbox, and nobody has to be woken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from protocols.answers import Answer, Ask, Failed
from protocols.control import Health, Overloaded
from protocols.envelope import Envelope
from protocols.ids import HostId


class Mailbox(Protocol):
    """What a link needs of a host (`swarm.runtime.host.Host`)."""

    def deliver(self, batch: Sequence[Envelope]) -> list[Overloaded]: ...

    async def collect(self) -> list[Envelope]: ...

    def health(self) -> Health: ...

    def close(self) -> None: ...


@runtime_checkable
class Desk(Protocol):
    """A host that answers in its caller's own asyncio task. Such a host cannot be lost without its caller."""

    async def answer(self, ask: Ask) -> Answer | Failed | Overloaded:
        """Work on `ask` right here. Cancelling the caller cancels the work."""
        ...


class LocalLink:
    """Calls the host directly on the event loop that both share. `desk`: where it may be asked without a message."""

    def __init__(self, host: HostId, mailbox: Mailbox) -> None:
        self.host = host
        self.desk = mailbox if isinstance(mailbox, Desk) else None
        self._mailbox = mailbox

    async def deliver(self, batch: Sequence[Envelope]) -> list[Overloaded]:
        return self._mailbox.deliver(batch)

    async def collect(self) -> list[Envelope]:
        return await self._mailbox.collect()

    async def health(self) -> Health:
        return self._mailbox.health()

    async def close(self) -> None:
        self._mailbox.close()
