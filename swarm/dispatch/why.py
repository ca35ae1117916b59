"""Decisions as the receipt counts them and the result explains them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from protocols.tasks import Why
from swarm.dispatch import moves
from swarm.dispatch.attempts import NOTHING, Made
from swarm.dispatch.judge import CONFIDENT, NEVER, Verdict
from swarm.dispatch.policy import cause
from swarm.plan.plan import Plan


def outcome(made: Made, decided: Sequence[moves.Decision]) -> str:
    """What became of an attempt, in the receipt's words. An answer that nobody waits for any more is `cancelled`."""
    event = made.event
    if not isinstance(event, moves.Answered):
        names = {moves.HoldRefused: "refused", moves.AttemptFailed: "failed", moves.Recalled: "recalled"}
        return names[type(event)] if event is not None else "cancelled"
    became = "escalated" if decided else "cancelled"
    for decision in decided:
        if isinstance(decision, moves.EndStep) and decision.step == event.step:
            if decision.tier == event.tier:
                return decision.status
            if decision is decided[0]:
                became = "overruled"  # by an earlier answer that is likelier to be right
    return became


def explained(plan: Plan, decided: Sequence[moves.Decision], made: Made | None = None) -> list[Why]:
    """One entry for each decision about a step but the plain asking of its next tier. `made`: what was decided on."""
    return [entry for decision in decided if (entry := _entry(plan, decision, made)) is not None]


def _entry(plan: Plan, decision: moves.Decision, made: Made | None) -> Why | None:
    event = made.event if made is not None else None
    verdict: Verdict | None = None
    match decision:
        case moves.Try():
            if not _is_retry(decision, event):
                return None
            assert isinstance(event, moves.AttemptFailed)
            said: dict[str, Any] = {"decision": "retry", "tier": decision.tier.name, "reason": cause(event.failed)}
        case moves.EndStep():
            verdict = decision.verdict
            said = _ended(decision, event)
        case moves.Escalate(_, tier, to, reason):
            verdict = decision.verdict
            said = {"decision": "best_of" if to == tier else "escalate", "tier": tier, "reason": reason}
        case moves.Missed():
            said = {"decision": "missed", "tier": decision.tier.name, "reason": decision.reason}
        case _:
            return None
    if made is not None and event is not None and event.step == decision.step and said["decision"] != "missed":
        said |= _grounds(made, event, said["tier"])
    if verdict is not None:
        said |= _weighed(verdict, event)
    else:
        said["accept_at"] = plan.step(decision.step).accept_at
    return Why(step=decision.step, **said)


def _ended(end: moves.EndStep, event: moves.OfAttempt | None) -> dict[str, Any]:
    reason, tier = end.reason, end.tier
    if end.status == "accepted":
        reason = end.verdict.reason if end.verdict is not None else reason or CONFIDENT
    if tier is None and event is not None and event.step == end.step:
        tier = event.tier
    return {"decision": end.status, "tier": tier, "confidence": end.confidence, "reason": reason}


def _weighed(verdict: Verdict, event: moves.Event | None) -> dict[str, Any]:
    """The threshold that was applied, and where tiers were weighed against their price what they were weighed at."""
    said: dict[str, Any] = {"rule": verdict.rule}
    if verdict.accept_at < NEVER:
        said["accept_at"] = verdict.accept_at
    if verdict.weighed and isinstance(event, moves.Answered):
        said |= {"weighed": verdict.weighed, "would_change": verdict.would_change}
        said["shadow_price"] = event.money.shadow_price
    return said


def _grounds(made: Made, event: moves.OfAttempt, tier: str | None) -> dict[str, Any]:
    """What a decision about the very attempt that has just ended was made from."""
    if isinstance(event, moves.HoldRefused):
        return {"hold": made.hold, "budget_left": dict(made.budget_left)}
    if isinstance(event, moves.Recalled):
        return {"rule": event.rule}
    if tier != event.tier:
        return {}
    hold = made.hold if made.hold != NOTHING else None
    if isinstance(event, moves.Answered):
        return {"hold": hold, "confidence": event.confidence, "signals": msgspec.to_builtins(event.signals)}
    return {"hold": hold}


def _is_retry(decision: moves.Try, event: moves.Event | None) -> bool:
    return isinstance(event, moves.AttemptFailed) and (event.step, event.tier) == (decision.step, decision.tier.name)
