"""A task as its journal tells it: what has happened to it, decided on again. Pure: nothing is asked or paid again.

The policy is a function of what happened, so its recorded events bring a task back to where it stood (`retrace`); and
they show what would be decided by other rules (`differing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec

from protocols.money import Amount
from protocols.records import Attempt
from protocols.tasks import Why
from swarm.dispatch import moves, policy
from swarm.dispatch.attempts import NOTHING, Made
from swarm.dispatch.rules import Rule, believed
from swarm.dispatch.ways import asked_as
from swarm.dispatch.why import explained, outcome
from swarm.plan.plan import Plan

Happened = moves.Answered | moves.AttemptFailed | moves.HoldRefused | moves.Recalled

_decode = msgspec.msgpack.Decoder(Happened).decode


@dataclass(frozen=True, slots=True)
class Past:
    """What the journal keeps of a task that was broken off. `unavailable`: the tiers that could not be asked then."""

    attempts: Sequence[Attempt]
    unavailable: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Retraced:
    """Where a task stands. `begin`: attempts to be made, as no end of theirs is known. `place`: of the next attempt."""

    state: policy.TaskState
    begin: list[moves.Try]
    why: list[Why]
    cost: Amount
    place: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A step that would now go another way. `saved`: millionths of a dollar that it then spent after that point."""

    task: str
    step: str
    tier: str
    then: str
    now: str
    confidence: float | None
    saved: int


def retrace(plan: Plan, past: Past, rules: Mapping[str, Rule]) -> Retraced:
    """Decide again on all that is recorded, by the same plan and rules. What is recorded has been paid."""
    state = policy.TaskState(plan, past.unavailable, rules)
    open_ = policy.decide(moves.Begin(), state)
    why = explained(plan, open_)
    cost, place = NOTHING, 0
    for attempt in in_order(past.attempts):
        cost += _used(attempt)
        place = max(place, attempt.place + 1)
        if not attempt.event:
            continue
        event = _decode(attempt.event)
        decided = policy.decide(event, state)
        why += explained(plan, decided, Made(event, attempt, NOTHING))
        open_ = [d for d in open_ if not (isinstance(d, moves.Try) and d.step == event.step)] + decided
    return Retraced(state, [d for d in open_ if isinstance(d, moves.Try)], why, cost, place)


def differing(plan: Plan, attempts: Iterable[Attempt], rules: Mapping[str, Rule]) -> Iterator[Difference]:
    """Every step of every task for which `plan` and `rules` decide otherwise, at the first decision that differs.

    A confidence is made anew where the rules know that tier, else it is the recorded one. Steps and tiers that the plan
    does not have are passed over.
    """
    known = {(step.name, tier.name): tier for step in plan.steps for tier in step.ladder}
    for (task, step), group in groupby(sorted(attempts, key=_by_step), key=lambda a: (a.task, a.step)):
        tried = [a for a in group if a.event]
        if all((a.step, a.tier) in known for a in tried):
            yield from _first_difference(plan, task, step, tried, rules)


def _first_difference(
    plan: Plan, task: str, step: str, tried: list[Attempt], rules: Mapping[str, Rule]
) -> Iterator[Difference]:
    state = policy.TaskState(plan, {}, rules)
    state.steps[step].phase = "running"
    for i, attempt in enumerate(tried):
        event = _anew(plan, _decode(attempt.event), rules)
        state.steps[step].rung = [t.name for t in plan.step(step).ladder].index(attempt.tier)  # it was asked, anyhow
        now = outcome(Made(event, attempt, NOTHING), policy.decide(event, state))
        if attempt.outcome not in (now, "cancelled"):
            sure = event.confidence if isinstance(event, moves.Answered) else None
            yield Difference(task, step, attempt.tier, attempt.outcome, now, sure,
                             sum(a.micro_usd for a in tried[i + 1 :]))  # fmt: skip
            return


def in_order(attempts: Iterable[Attempt]) -> list[Attempt]:
    """As they were decided on."""
    return sorted(attempts, key=lambda a: (a.task, a.place, a.id))


def _anew(plan: Plan, event: Happened, rules: Mapping[str, Rule]) -> Happened:
    rule = rules.get(event.step)
    if not isinstance(event, moves.Answered) or rule is None:
        return event
    if asked_as(event.tier, event.samples) not in rule.calibrations:
        return event
    tier = next(t for t in plan.step(event.step).ladder if t.name == event.tier)
    return msgspec.structs.replace(event, confidence=believed(rule, tier, event.signals, None, event.samples))


def _by_step(attempt: Attempt) -> tuple[str, str, int, str]:
    return attempt.task, attempt.step, attempt.place, attempt.id


def _used(attempt: Attempt) -> Amount:
    return Amount(micro_usd=attempt.micro_usd, tokens=attempt.tokens_in + attempt.tokens_out, ms=attempt.ms)
