"""The dispatcher's mind: events in, decisions out. No I/O, no clock, no randomness.

`decide` is the whole interface. A `TaskState` (`progress`) is one task's memory; only this file changes it.

The rule: an answer is accepted when the judge says so (`judge`: its confidence reaches the step's threshold, or nothing
dearer is worth its price); it may be an earlier one than the latest. Else what the judge names is asked: the same tier
for several candidates, the next of the ladder, one further up. Where a tier fails or its hold is refused, those that
were skipped below it get their turn. What the ladder cannot settle is kept as the best answer, flagged, or goes to a
person where the ladder ends in one.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from functools import cache
from typing import Literal, assert_never

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
    Recalled,
    TimeUp,
    Try,
    Unusable,
)
from swarm.dispatch.progress import Candidate, StepState, TaskState
from swarm.dispatch.quality import Reading
from swarm.dispatch.rules import Rule
from swarm.dispatch.ways import asked_as, rung_of
from swarm.plan.plan import PlannedStep, Tier

__all__ = ["RETRIES", "StepState", "TaskState", "cause", "decide"]

RETRIES = 1  # of the same tier, after a failure that may pass


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
        case Recalled():
            decisions = _on_recall(event, state)
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
    rule = state.rules.get(event.step) or _stated(planned.accept_at)
    name = asked_as(event.tier, event.samples)
    step.rung, step.samples = rung_of(planned, event.tier), event.samples
    step.readings[name] = Reading(event.confidence, comparable(event.output) if rule.quality is not None else None)
    step.answers[name] = Candidate(event.tier, event.output, event.confidence)
    verdict = judge(planned, step.rung, step.readings, rule, state.plan.aim, event.money,
                    step.missing(state.unavailable), alarmed=event.alarmed, samples=event.samples)  # fmt: skip
    kept = step.answers[verdict.keep]
    step.best = best = Candidate(kept.tier, kept.output, verdict.sure, verdict.enough)
    if verdict.accepted:
        return [_end(state, EndStep(event.step, "accepted", best.tier, best.output, best.confidence, verdict=verdict))]
    step.earlier += (Earlier(name, event.output, event.signals),)
    reason = verdict.reason
    if event.signals.checks_failed:
        reason = "failed " + ", ".join(event.signals.checks_failed)
    if verdict.rung is None:
        return [_keep_best(event.step, step, state, reason, verdict)]
    return _climb(planned, step, state, event.tier, reason, event.confidence, verdict)


@cache
def _stated(accept_at: float) -> Rule:
    return Rule(accept_at, "as the file says")


def _on_failure(event: AttemptFailed, state: TaskState) -> list[Decision]:
    planned, step = state.plan.step(event.step), state.steps[event.step]
    if step.phase == "over":
        return []
    if event.failed.retryable and step.retries < RETRIES:
        step.retries += 1
        pause = event.failed.retry_ms or 0
        return [Try(event.step, planned.ladder[step.rung], step.earlier, step.samples, pause)]
    if step.best is not None and step.best.enough:
        return [_keep_best(event.step, step, state, cause(event.failed))]
    if event.no_hold:
        return _enter(planned, step, state, None, cause(event.failed))
    step.gone[asked_as(event.tier, step.samples)] = event.failed.reason
    return _climb(planned, step, state, event.tier, cause(event.failed))


def cause(failed: Failed) -> str:
    """Why an attempt failed, in one line."""
    return f"{failed.reason}: {failed.detail}" if failed.detail else failed.reason


def _on_refusal(event: HoldRefused, state: TaskState) -> list[Decision]:
    planned, step = state.plan.step(event.step), state.steps[event.step]
    if step.phase == "over":
        return []
    step.gone[asked_as(event.tier, step.samples)] = event.detail
    if step.samples > 1:  # only the second look is too dear
        return _climb(planned, step, state, event.tier, event.detail)
    if step.best is not None and step.best.enough:
        return [_keep_best(event.step, step, state, event.detail)]
    if state.plan.on_exhausted == "stop":
        step.phase = "waiting"  # its attempt is over, there is nothing to drop
        return _finish_now(state, "budget_exhausted", event.detail)
    skipped = (tier.name for tier in planned.ladder[: rung_of(planned, event.tier)])
    if any(step.untried(name) and name not in state.unavailable for name in skipped):
        return _climb(planned, step, state, event.tier, event.detail)
    if step.best is not None:
        return [_keep_best(event.step, step, state, event.detail)]
    last = planned.ladder[-1]
    if last.kind == "person":
        return [_end(state, EndStep(event.step, "person", last.name, reason=event.detail))]
    step.refused = True
    return [_end(state, EndStep(event.step, "failed", reason=event.detail))]


def _on_recall(event: Recalled, state: TaskState) -> list[Decision]:
    if state.steps[event.step].phase == "over":
        return []
    return [_end(state, EndStep(event.step, "accepted", event.tier, event.output, event.confidence, event.reason))]


# --- the ladder -------------------------------------------------------------------------------------------------


def _climb(
    planned: PlannedStep, step: StepState, state: TaskState, tier: str, reason: str, confidence: float | None = None,
    verdict: Verdict | None = None,
) -> list[Decision]:  # fmt: skip
    """On to what the verdict names; without one to the cheapest tier that was not asked yet."""
    step.retries, step.samples = 0, 1
    after: list[Decision] = []
    if verdict is not None and verdict.rung is not None and verdict.samples > 1:
        step.rung, step.samples = verdict.rung, verdict.samples
        reached: Tier | None = planned.ladder[verdict.rung]
    else:
        after, reached = _reach(planned, step, state, 0 if verdict is None or verdict.rung is None else verdict.rung)
    to = reached.name if reached is not None else None
    decisions: list[Decision] = [Escalate(planned.name, tier, to, reason, confidence, verdict), *after]
    return [*decisions, *_enter(planned, step, state, reached, reason)]


def _reach(planned: PlannedStep, step: StepState, state: TaskState, at: int = 0) -> tuple[list[Decision], Tier | None]:
    """The first tier from place `at` up that was not asked and can be; then those below, a person last of all."""
    missed: list[Decision] = []
    ladder = planned.ladder
    order: Sequence[int] = range(len(ladder))
    if at:
        order = sorted(order, key=lambda rung: (ladder[rung].kind == "person" and rung != at, rung < at, rung))
    for rung in order:
        tier = ladder[rung]
        if not step.untried(tier.name):
            continue
        if (why := state.unavailable.get(tier.name)) is None:
            step.rung = rung
            return missed, tier
        step.gone[tier.name] = why
        missed.append(Missed(planned.name, tier, why))
    return missed, None


def _enter(planned: PlannedStep, step: StepState, state: TaskState, tier: Tier | None, reason: str) -> list[Decision]:
    if tier is None:
        if step.best is None:
            return [_end(state, EndStep(planned.name, "failed", reason=reason))]
        return [_keep_best(planned.name, step, state, f"{reason}, and no dearer tier can be asked")]
    if tier.kind == "person":
        return [_end(state, EndStep(planned.name, "person", tier.name, reason=reason))]
    step.phase = "running"
    return [Try(planned.name, tier, step.earlier, step.samples)]


def _keep_best(name: str, step: StepState, state: TaskState, reason: str, verdict: Verdict | None = None) -> EndStep:
    """What there is: accepted where it is good enough and only more was hoped for, else flagged."""
    assert step.best is not None
    best = step.best
    status: Literal["accepted", "degraded"] = "accepted" if best.enough else "degraded"
    return _end(state, EndStep(name, status, best.tier, best.output, best.confidence, reason, verdict))


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
        waits = False
        for need in planned.needs:
            end = state.steps[need].end
            if end is not None and end.output is None:
                decisions.append(_end(state, EndStep(planned.name, "skipped", reason=f"step {need!r} has no output")))
                break
            waits = waits or end is None
        else:
            if not waits:
                missed, tier = _reach(planned, step, state)
                decisions += [*missed, *_enter(planned, step, state, tier, "no tier can be asked")]
    return decisions


def _finish_if_over(state: TaskState) -> list[Decision]:
    if state.open:
        return []
    return [_finished(state, *state.verdict())]


def _finish_now(state: TaskState, status: Status, reason: str) -> list[Decision]:
    """End the task with what there is: running steps keep their best answer, the others are skipped."""
    decisions: list[Decision] = []
    for name, step in state.steps.items():
        if step.phase == "over":
            continue
        if step.phase == "running":
            decisions.append(Drop(name))
        if step.best is not None and (step.best.enough or state.plan.on_exhausted == "degrade"):
            decisions.append(_keep_best(name, step, state, reason))
        else:
            decisions.append(_end(state, EndStep(name, "skipped", reason=reason)))
    ends = {step.end.status for step in state.steps.values() if step.end is not None}
    if ends == {"accepted"}:
        return [*decisions, _finished(state, "done", "")]
    return [*decisions, _finished(state, "degraded" if ends <= {"accepted", "degraded"} else status, reason)]


def _finished(state: TaskState, status: Status, reason: str) -> Finish:
    state.finished = Finish(status, reason)
    return state.finished
