"""What can happen to a task, and what can be decided about it: two closed unions."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from protocols.answers import Earlier, Failed, Signals
from protocols.money import Amount
from protocols.tasks import Status
from swarm.dispatch.judge import PLENTY, Money, Verdict
from swarm.plan.plan import Tier

# --- what happens -----------------------------------------------------------------------------------------------


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """The task was accepted."""


class Answered(msgspec.Struct, frozen=True, omit_defaults=True, tag="answered"):
    """`alarmed`: what had certified this tier's answers was known to be broken when this one came.

    `samples`: how many candidates it was chosen from.
    """

    step: str
    tier: str
    output: dict[str, Any]
    signals: Signals
    confidence: float
    money: Money = PLENTY
    alarmed: bool = False
    samples: int = 1


class AttemptFailed(msgspec.Struct, frozen=True, omit_defaults=True, tag="failed"):
    """`no_hold`: the store gave none, so nothing that must be paid may be asked instead."""

    step: str
    tier: str
    failed: Failed
    no_hold: bool = False


class HoldRefused(msgspec.Struct, frozen=True, tag="refused"):
    step: str
    tier: str
    detail: str


class Recalled(msgspec.Struct, frozen=True, omit_defaults=True, tag="recalled"):
    """The step's answer is known from before: `tier` gave it, and it was accepted.

    `reason`: where it comes from. `rule`: what is promised of reusing it. `saved`: what it cost then.
    """

    step: str
    tier: str
    output: dict[str, Any]
    confidence: float
    reason: str
    rule: str = ""
    saved: Amount = Amount()


class Unusable(msgspec.Struct, frozen=True, tag="unusable"):
    """The task was accepted, and its input is not what the steps need."""

    detail: str


class TimeUp(msgspec.Struct, frozen=True, tag="time_up"):
    """The task's time, or the run's, has run out."""

    of: Literal["task", "run"] = "task"


OfAttempt = Answered | AttemptFailed | HoldRefused | Recalled
Event = Begin | OfAttempt | Unusable | TimeUp


# --- what to do -------------------------------------------------------------------------------------------------


class Try(msgspec.Struct, frozen=True):
    """Hold the price of this tier, then ask it, `after_ms` from now. `samples`: candidates to choose an answer from."""

    step: str
    tier: Tier
    earlier: tuple[Earlier, ...]
    samples: int = 1
    after_ms: int = 0


class Missed(msgspec.Struct, frozen=True):
    """This tier would have been asked, but cannot be."""

    step: str
    tier: Tier
    reason: str


class Escalate(msgspec.Struct, frozen=True):
    """The answer of `tier` (or its failure) is not good enough; `to` is next, None if nothing is left to ask.

    `to` may be the same tier, asked for several candidates, and a cheaper one that was skipped before.
    """

    step: str
    tier: str
    to: str | None
    reason: str
    confidence: float | None = None
    verdict: Verdict | None = None


class EndStep(msgspec.Struct, frozen=True):
    """The step is over; `output` is what its dependents see."""

    step: str
    status: Literal["accepted", "degraded", "person", "failed", "skipped"]
    tier: str | None = None
    output: dict[str, Any] | None = None
    confidence: float | None = None
    reason: str = ""
    verdict: Verdict | None = None


class Drop(msgspec.Struct, frozen=True):
    """Cancel the attempt that runs for this step."""

    step: str


class Finish(msgspec.Struct, frozen=True):
    """The task's one terminal state."""

    status: Status
    reason: str = ""


Decision = Try | Missed | Escalate | EndStep | Drop | Finish
