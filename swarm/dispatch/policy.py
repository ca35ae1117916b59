"""The dispatcher's mind: events in, decisions out. No I/O, no clock, no randomness.

`decide` is the whole interface. A `TaskState` is one task's memory between events; only this file changes it.

The rule: an answer is accepted when the judge says so (`judge`: its confidence reaches the step's threshold, or nothing
dearer is worth its price). Else the tier that the judge names is asked, or the next of the ladder, as long as its hold
fits every budget; what the ladder cannot settle is kept as the best answer, flagged, or goes to a person where the
ladder ends in one.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

from protocols.answers import Earlier, Failed
from protocols.tasks import Status
from swarm.dispatch.judge import Verdict, judge
from swarm.dispatch.learnt import comparable
from swarm.dispatch.moves import (
    Answered,
    AttemptFailed,
    Begin,
    Decision,
    Drop,
    EndStep,
    Escalate,
    Event,
    Finish,
    HoldRefused,
    Missed,
    TimeUp,
    Try,
    Unusable,
)
from swarm.dispatch.quality import Reading
from swarm.dispatch.rules import Rule
from swarm.plan.plan import Plan, PlannedStep, Tier

RETRIES = 1  # of the same tier, after a failure that may pass


# --- memory -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Candidate:
    """An answer that was not sure enough, kept in case nothing better comes."""

    tier: str
    output: dict[str, Any]
    confidence: float


@dataclass(slots=True)
class StepState:
    phase: Literal["waiting", "running", "over"] = "waiting"
    rung: int = 0
    retries: int = 0
    earlier: tuple[Earlier, ...] = ()
    best: Candidate | None = None
    end: EndStep | None = None
    refused: bool = False  # it failed for want of budget
    readings: dict[str, Reading] = field(default_factory=dict)


@dataclass(slots=True)
class TaskState:
    """`unavailable` maps a tier's name to the reason why it cannot be asked in this run.

    `rules`: of the steps for which more is known than their `accept_at`. `alarmed`: steps whose certificate is broken.
    `known`: what the steps that are over have put out. `open`: how many are not over. `stirred`: places (a heap) of
    those that may have become ready, so that not all have to be looked at.
    """

    plan: Plan
    unavailable: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, Rule] = field(default_factory=dict)
    alarmed: Collection[str] = ()
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


def decide(event: Event, state: TaskState) -> list[Decision]:
    """What to do now. After a `Finish` every further event is answered with nothing."""
    if state.finished is not None:
        return []
    match event:
        case Begin():
            decisions: list[Decision] = []
        case Answered():
            decisions = _on_answer(event, state)
        case AttemptFailed():
            decisions = _on_failure(event, state)
        case HoldRefused():
            decisions = _on_refusal(event, state)
        case Unusable(detail):
            return _finish_now(state, "failed", detail)
        case TimeUp(of):
            return _finish_now(state, "deadline", f"no time left; raise budget.{of}.seconds")
        case _:
            assert_never(event)
    if state.finished is None:
        decisions += _start_ready(state)
        decisions += _finish_if_over(state)
    return decisions


# --- one event each ---------------------------------------------------------------------------------------------


def _on_answer(event: Answered, state: TaskState) -> list[Decision]:
    planned, step = state.plan.step(event.step), state.steps[event.step]
    if step.phase == "over":
        return []
    rule = state.rules.get(event.step) or Rule(planned.accept_at, "as the file says")
    known = comparable(event.output) if rule.quality is not None else None
    step.readings[event.tier] = Reading(event.confidence, known)
    verdict = judge(planned, step.rung, step.readings, rule, state.plan.aim, event.money, state.unavailable,
                    alarmed=event.step in state.alarmed)  # fmt: skip
    if verdict.accepted:
        kept = EndStep(event.step, "accepted", event.tier, event.output, event.confidence, verdict=verdict)
        return [_end(state, kept)]
    step.earlier += (Earlier(event.tier, event.output, event.signals),)
    if step.best is None or event.confidence >= step.best.confidence:
        step.best = Candidate(event.tier, event.output, event.confidence)
    reason = verdict.reason
    if event.signals.checks_failed:
        reason = "failed " + ", ".join(event.signals.checks_failed)
    if verdict.rung is None:
        return [_keep_best(event.step, step, state, reason, verdict)]
    return _climb(planned, step, state, event.tier, reason, event.confidence, verdict)


def _on_failure(event: AttemptFailed, state: TaskState) -> list[Decision]:
    planned, step = state.plan.step(event.step), state.steps[event.step]
    if step.phase == "over":
        return []
    if event.failed.retryable and step.retries < RETRIES:
        step.retries += 1
        return [Try(event.step, planned.ladder[step.rung], step.earlier)]
    if event.no_hold:
        return _enter(planned, step, state, None, cause(event.failed))
    return _climb(planned, step, state, event.tier, cause(event.failed))


def cause(failed: Failed) -> str:
    """Why an attempt failed, in one line."""
    return f"{failed.reason}: {failed.detail}" if failed.detail else failed.reason


def _on_refusal(event: HoldRefused, state: TaskState) -> list[Decision]:
    step = state.steps[event.step]
    if step.phase == "over":
        return []
    if state.plan.on_exhausted == "stop":
        step.phase = "waiting"  # its attempt is over, there is nothing to drop
        return _finish_now(state, "budget_exhausted", event.detail)
    if step.best is not None:
        return [_keep_best(event.step, step, state, event.detail)]
    last = state.plan.step(event.step).ladder[-1]
    if last.kind == "person":
        return [_end(state, EndStep(event.step, "person", last.name, reason=event.detail))]
    step.refused = True
    return [_end(state, EndStep(event.step, "failed", reason=event.detail))]


# --- the ladder -------------------------------------------------------------------------------------------------


def _climb(
    planned: PlannedStep, step: StepState, state: TaskState, tier: str, reason: str, confidence: float | None = None,
    verdict: Verdict | None = None,
) -> list[Decision]:  # fmt: skip
    """On to the next rung that can be asked, or to the one that the verdict names."""
    step.rung = step.rung + 1 if verdict is None or verdict.rung is None else verdict.rung
    step.retries = 0
    after, reached = _reach(planned, step, state)
    to = reached.name if reached is not None else None
    decisions: list[Decision] = [Escalate(planned.name, tier, to, reason, confidence, verdict), *after]
    return [*decisions, *_enter(planned, step, state, reached, reason)]


def _reach(planned: PlannedStep, step: StepState, state: TaskState) -> tuple[list[Decision], Tier | None]:
    """Move past rungs that cannot be asked in this run."""
    missed: list[Decision] = []
    while step.rung < len(planned.ladder):
        tier = planned.ladder[step.rung]
        if (why := state.unavailable.get(tier.name)) is None:
            return missed, tier
        missed.append(Missed(planned.name, tier, why))
        step.rung += 1
    return missed, None


def _enter(planned: PlannedStep, step: StepState, state: TaskState, tier: Tier | None, reason: str) -> list[Decision]:
    if tier is None:
        if step.best is None:
            return [_end(state, EndStep(planned.name, "failed", reason=reason))]
        return [_keep_best(planned.name, step, state, f"{reason}, and no dearer tier can be asked")]
    if tier.kind == "person":
        return [_end(state, EndStep(planned.name, "person", tier.name, reason=reason))]
    step.phase = "running"
    return [Try(planned.name, tier, step.earlier)]


def _keep_best(name: str, step: StepState, state: TaskState, reason: str, verdict: Verdict | None = None) -> EndStep:
    assert step.best is not None
    best = step.best
    return _end(state, EndStep(name, "degraded", best.tier, best.output, best.confidence, reason, verdict))


def _end(state: TaskState, end: EndStep) -> EndStep:
    step = state.steps[end.step]
    step.phase, step.end = "over", end
    state.open -= 1
    if end.output is not None:
        state.known[end.step] = end.output
    for dependent in state.plan.dependents(end.step):
        heapq.heappush(state.stirred, state.plan.place(dependent))
    return end


# --- the graph --------------------------------------------------------------------------------------------------


def _start_ready(state: TaskState) -> list[Decision]:
    """Start each waiting step whose inputs are there, in order; skip one whose inputs never will be."""
    decisions: list[Decision] = []
    while state.stirred:
        planned = state.plan.steps[heapq.heappop(state.stirred)]
        step = state.steps[planned.name]
        if step.phase != "waiting":
            continue
        ends = {need: state.steps[need].end for need in planned.needs}
        lost = next((need for need, end in ends.items() if end is not None and end.output is None), None)
        if lost is not None:
            decisions.append(_end(state, EndStep(planned.name, "skipped", reason=f"step {lost!r} has no output")))
        elif None not in ends.values():
            missed, tier = _reach(planned, step, state)
            decisions += [*missed, *_enter(planned, step, state, tier, "no tier can be asked")]
    return decisions


def _finish_if_over(state: TaskState) -> list[Decision]:
    if state.open:
        return []
    return [_finished(state, *_verdict(state))]


def _verdict(state: TaskState) -> tuple[Status, str]:
    """The worst that became of a step, and of the first of those the reason."""
    by_status = {step.end.status: step.end for step in reversed(state.steps.values()) if step.end is not None}
    if end := by_status.get("failed"):
        return ("budget_exhausted" if state.steps[end.step].refused else "failed"), _told(end)
    if end := by_status.get("person"):
        return "person", _told(end)
    if end := by_status.get("degraded"):
        return "degraded", _told(end)
    return "done", ""


def _told(end: EndStep) -> str:
    named = f"step {end.step!r}"
    return end.reason if end.reason.startswith(named) else f"{named}: {end.reason}"


def _finish_now(state: TaskState, status: Status, reason: str) -> list[Decision]:
    """End the task with what there is: running steps keep their best answer, the others are skipped."""
    decisions: list[Decision] = []
    for name, step in state.steps.items():
        if step.phase == "over":
            continue
        if step.phase == "running":
            decisions.append(Drop(name))
        if step.best is not None and state.plan.on_exhausted == "degrade":
            decisions.append(_keep_best(name, step, state, reason))
        else:
            decisions.append(_end(state, EndStep(name, "skipped", reason=reason)))
    answered = all(step.end is not None and step.end.output is not None for step in state.steps.values())
    return [*decisions, _finished(state, "degraded" if answered else status, reason)]


def _finished(state: TaskState, status: Status, reason: str) -> Finish:
    state.finished = Finish(status, reason)
    return state.finished
