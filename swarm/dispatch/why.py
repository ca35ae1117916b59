"""Decisions as the receipt counts them and the result explains them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from protocols.tasks import Why
from swarm.dispatch import moves
from swarm.dispatch.attempts import NOTHING, Made
from swarm.dispatch.policy import cause
from swarm.plan.plan import Plan


def outcome(made: Made, decided: Sequence[moves.Decision]) -> str:
    """What became of an attempt, in the receipt's words. An answer that nobody waits for any more is `cancelled`."""
    event = made.event
    if not isinstance(event, moves.Answered):
        names = {moves.HoldRefused: "refused", moves.AttemptFailed: "failed"}
        return names[type(event)] if event is not None else "cancelled"
    for decision in decided:
        if isinstance(decision, moves.EndStep) and (decision.step, decision.tier) == (event.step, event.tier):
            return decision.status
    return "escalated" if decided else "cancelled"


def explained(plan: Plan, decided: Sequence[moves.Decision], made: Made | None = None) -> list[Why]:
    """One entry for each decision about a step but the plain asking of its next tier. `made`: what was decided on."""
    entries = (_entry(plan, decision, made) for decision in decided)
    return [entry for entry in entries if entry is not None]


def _entry(plan: Plan, decision: moves.Decision, made: Made | None) -> Why | None:
    event = made.event if made is not None else None
    match decision:
        case moves.Escalate(step=step, tier=tier, reason=reason):
            why = Why(step=step, decision="escalate", tier=tier, reason=reason)
        case moves.Missed(step=step, tier=tier, reason=reason):
            why = Why(step=step, decision="missed", tier=tier.name, reason=reason)
        case moves.EndStep(step=step, tier=tier, status=status, reason=reason):
            asked = event.tier if event is not None and event.step == step else None
            why = Why(step=step, decision=status, tier=tier or asked, confidence=decision.confidence,
                      reason="confident enough" if status == "accepted" else reason)  # fmt: skip
        case moves.Try(step=step, tier=tier) if _is_retry(decision, event):
            assert isinstance(event, moves.AttemptFailed)
            why = Why(step=step, decision="retry", tier=tier.name, reason=cause(event.failed))
        case _:
            return None
    why = msgspec.structs.replace(why, accept_at=plan.step(why.step).accept_at)
    if made is None or event is None or event.step != why.step or why.decision == "missed":
        return why
    return _judged(why, made, event)


def _judged(why: Why, made: Made, event: moves.Answered | moves.AttemptFailed | moves.HoldRefused) -> Why:
    """A decision about the very attempt that has just ended, with what it was made from."""
    if isinstance(event, moves.HoldRefused):
        return msgspec.structs.replace(why, hold=made.hold, budget_left=dict(made.budget_left))
    if why.tier != event.tier:
        return why
    why = msgspec.structs.replace(why, hold=made.hold if made.hold != NOTHING else None)
    if isinstance(event, moves.Answered):
        return msgspec.structs.replace(why, confidence=event.confidence, signals=msgspec.to_builtins(event.signals))
    return why


def _is_retry(decision: moves.Try, event: moves.Event | None) -> bool:
    return isinstance(event, moves.AttemptFailed) and (event.step, event.tier) == (decision.step, decision.tier.name)
