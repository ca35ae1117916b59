"""How far a task has come: one task's memory between events. Only the policy changes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from protocols.answers import Earlier
from protocols.tasks import Status
from swarm.dispatch.moves import EndStep, Finish
from swarm.dispatch.quality import Reading
from swarm.dispatch.rules import Rule
from swarm.plan.plan import Plan


class Candidate(msgspec.Struct, frozen=True):
    """An answer that is kept in case nothing better comes; it is good enough, or there was nothing better to ask."""

    tier: str
    output: dict[str, Any]
    confidence: float
    enough: bool = False


@dataclass(slots=True)
class StepState:
    """`rung`, `samples`: what was asked last. `answers`, `readings`, `gone` (what has failed): by `asked_as`."""

    phase: Literal["waiting", "running", "over"] = "waiting"
    rung: int = 0
    samples: int = 1
    retries: int = 0
    earlier: tuple[Earlier, ...] = ()
    answers: dict[str, Candidate] = field(default_factory=dict)
    readings: dict[str, Reading] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)  # with the reason
    best: Candidate | None = None
    end: EndStep | None = None
    refused: bool = False  # it failed for want of budget

    def untried(self, tier: str) -> bool:
        """Was this tier never asked?"""
        return tier not in self.readings and tier not in self.gone

    def missing(self, unavailable: Mapping[str, str]) -> Mapping[str, str]:
        """What cannot be asked in this run, and what has failed."""
        return {**unavailable, **self.gone} if self.gone else unavailable


@dataclass(slots=True)
class TaskState:
    """`unavailable` maps a tier's name to the reason why it cannot be asked in this run.

    `rules`: of the steps for which more is known than their `accept_at`.
    `known`: what the steps that are over have put out. `open`: how many are not over. `stirred`: places (a heap) of
    those that may have become ready, so that not all have to be looked at.
    """

    plan: Plan
    unavailable: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, Rule] = field(default_factory=dict)
    steps: dict[str, StepState] = field(init=False)
    known: dict[str, dict[str, Any]] = field(init=False, default_factory=dict)
    open: int = field(init=False)
    stirred: list[int] = field(init=False)
    finished: Finish | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.steps = {step.name: StepState() for step in self.plan.steps}
        self.open = len(self.steps)
        self.stirred = [place for place, step in enumerate(self.plan.steps) if not step.needs]

    def outputs(self) -> dict[str, dict[str, Any]]:
        """What the steps that are over have put out, in the order of the plan."""
        return {name: self.known[name] for name in self.steps if name in self.known}

    def verdict(self) -> tuple[Status, str]:
        """The worst that became of a step, and of the first of those the reason. All of them are over."""
        by_status = {step.end.status: step.end for step in reversed(self.steps.values()) if step.end is not None}
        if end := by_status.get("failed"):
            return ("budget_exhausted" if self.steps[end.step].refused else "failed"), _told(end)
        if end := by_status.get("person"):
            return "person", _told(end)
        if end := by_status.get("degraded"):
            return "degraded", _told(end)
        return "done", ""


def _told(end: EndStep) -> str:
    named = f"step {end.step!r}"
    return end.reason if end.reason.startswith(named) else f"{named}: {end.reason}"
