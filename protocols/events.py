"""What a run tells those who watch it."""

from __future__ import annotations

from typing import Any

import msgspec

from protocols.ids import TaskId
from protocols.tasks import Result


class TaskAccepted(msgspec.Struct, frozen=True, kw_only=True, tag="task.accepted"):
    task: TaskId


class StepAsked(msgspec.Struct, frozen=True, kw_only=True, tag="step.asked"):
    task: TaskId
    step: str
    tier: str


class StepAccepted(msgspec.Struct, frozen=True, kw_only=True, tag="step.accepted"):
    task: TaskId
    step: str
    tier: str
    confidence: float
    output: dict[str, Any]


class StepEscalated(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="step.escalated"):
    task: TaskId
    step: str
    from_tier: str
    to_tier: str | None
    reason: str
    confidence: float | None = None


class StepEnded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="step.ended"):
    """The step ended without an accepted answer: degraded, handed to a person, failed or skipped."""

    task: TaskId
    step: str
    status: str
    reason: str = ""


class TaskFinished(msgspec.Struct, frozen=True, kw_only=True, tag="task.finished"):
    task: TaskId
    result: Result


Event = TaskAccepted | StepAsked | StepAccepted | StepEscalated | StepEnded | TaskFinished
