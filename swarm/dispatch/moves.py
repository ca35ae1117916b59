"""What can happen to a task, and what can be decided about it: two closed unions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from protocols.answers import Earlier, Failed, Signals
from protocols.tasks import Status
from swarm.plan.plan import Tier

# --- what happens -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """The task was accepted."""


@dataclass(frozen=True, slots=True)
class Answered:
    step: str
    tier: str
    output: dict[str, Any]
    signals: Signals
    confidence: float


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """`no_hold`: the store gave none, so nothing that must be paid may be asked instead."""

    step: str
    tier: str
    failed: Failed
    no_hold: bool = False


@dataclass(frozen=True, slots=True)
class HoldRefused:
    step: str
    tier: str
    detail: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """The task was accepted, and its input is not what the steps need."""

    detail: str


@dataclass(frozen=True, slots=True)
class TimeUp:
    """The task's time, or the run's, has run out."""

    of: Literal["task", "run"] = "task"


Event = Begin | Answered | AttemptFailed | HoldRefused | Unusable | TimeUp


# --- what to do -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Try:
    """Hold the price of this tier, then ask it."""

    step: str
    tier: Tier
    earlier: tuple[Earlier, ...]


@dataclass(frozen=True, slots=True)
class Missed:
    """This tier would have been asked, but cannot be."""

    step: str
    tier: Tier
    reason: str


@dataclass(frozen=True, slots=True)
class Escalate:
    """The answer of `tier` (or its failure) is not good enough; `to` is next, None if the ladder ends."""

    step: str
    tier: str
    to: str | None
    reason: str
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class EndStep:
    """The step is over; `output` is what its dependents see."""

    step: str
    status: Literal["accepted", "degraded", "person", "failed", "skipped"]
    tier: str | None = None
    output: dict[str, Any] | None = None
    confidence: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Drop:
    """Cancel the attempt that runs for this step."""

    step: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The task's one terminal state."""

    status: Status
    reason: str = ""


Decision = Try | Missed | Escalate | EndStep | Drop | Finish
