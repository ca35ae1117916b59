"""The one thing that is put on the bus."""

from __future__ import annotations

import msgspec

from protocols.answers import Answer, Ask, Failed
from protocols.control import Cancel, Health, HostSpec, Overloaded, Ready

Message = Ask | Answer | Failed | Cancel | Overloaded | HostSpec | Ready | Health

WIRE_VERSION = 1


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message with its way: where it goes, where it is from, how often it has been sent."""

    to: str
    sender: str
    body: Message
    delivery: int = 1
    v: int = WIRE_VERSION
