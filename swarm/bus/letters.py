"""What the bus gave up on, and the look at itself that it offers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from protocols.envelope import Envelope
from protocols.ids import HostId

HostState = Literal["up", "slow", "starting", "given_up"]
"""`slow`: gets no new work while others can do it. `starting`: died, and a fresh one loads its models. `given_up`: died
too often, or could not be replaced; it is tried again later."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up on, and why."""

    envelope: Envelope
    cause: str


@dataclass(frozen=True, slots=True)
class BusStatistics:
    """A frozen look at the bus: asks answered per host, hosts that were replaced, messages sent again.

    `unanswered`: asks under way, those in this process too. `overdue`: asks that were ended here, as their host did not
    end them in time. `refused`: asks that found too many waiting. `dead_letters`: the last thousand.
    """

    answered: dict[HostId, int]
    restarts: int
    redelivered: int
    unanswered: int
    dead_letters: tuple[DeadLetter, ...]
    overdue: int = 0
    refused: int = 0
    hosts: dict[HostId, HostState] = field(default_factory=dict)
