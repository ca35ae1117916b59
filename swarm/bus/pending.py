"""An ask on its way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TypeGuard

from protocols.answers import Answer, Ask, Failed
from protocols.ids import HostId
from swarm.bus.pace import Kind


def raised(reply: Answer | Failed) -> TypeGuard[Failed]:
    """Whether code at a host raised over the ask. It may go well another time, so a host does not remember it."""
    return isinstance(reply, Failed) and reply.reason in ("error", "tool_error")


@dataclass(slots=True)
class Pending:
    """Until its reply is set. `since`: when this host got it. `due`: its end, on the monotonic clock."""

    ask: Ask
    reply: asyncio.Future[Answer | Failed]
    due: float | None
    host: HostId
    since: float = 0.0
    deliveries: int = 0
    kind: Kind = field(init=False)

    def __post_init__(self) -> None:
        self.kind = self.ask.specialist, self.ask.tier
