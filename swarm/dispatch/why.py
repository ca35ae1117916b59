"""Decisions as the receipt counts them and the result explains them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from protocols.tasks import Why
from swarm.dispatch import moves
from swarm.dispatch.attempts import NOTHING, Made
from swarm.dispatch.judge import NEVER, Verdict
from swarm.dispatch.policy import cause
from swarm.plan.plan import Plan


def outcome(made: Made, decided: Sequence[moves.Decision]) -> str:
    """What became of an attempt, in the receipt's words. An answer that nobody waits for any more is `cancelled`."""
    event = made.event
    if not isinstance(event, moves.Answered):
        names = {moves.HoldRefused: "refused", moves.AttemptFailed: "failed", moves.Recalled: "recalled"}
        return names[type(event)] if event is not None else "cancelled"
    mine = [d for d in decided if isinstance(d, moves.EndStep | moves.Escalate) and d.step == event.step]
    for decision in mine:
        if isinstance(decision, moves.EndStep) and decision.tier == event.tier:
            return decision.status
    if mine and isinstance(mine[0], moves.EndStep):
        return "overruled"  # by an earlier answer that is likelier to be right
    return "escalated" if decided else "cancelled"


def explained(plan: Plan, decided: Sequence[moves.Decision], made: Made | None = None) -> list[Why]:
    """One entry for each decision about a step but the plain asking of its next tier. `made`: what was decided on."""
    entries = (_entry(plan, decision, made) for decision in decided)
    return [entry for entry in entries if entry is not None]


def _entry(plan: Plan, decision: moves.Decision, made: Made | None) -> Why | None:
    event = made.event if made is not None else None
    match decision:
        case moves.Escalate(step, tier, to, reason):
            said: dict[str, Any] = {"decision": "best_of" if to == tier else "escalate", "tier": tier, "reason": reason}
        case moves.Missed(step, missed, reason):
            said = {"decision": "missed", "tier": missed.name, "reason": reason}
        case moves.EndStep(step, status, tier):
            asked = event.tier if event is not None and event.step == step else None
            kept = decision.verdict.reason if decision.verdict is not None else decision.reason or "confident enough"
            reason = kept if status == "accepted" else decision.reason
            said = {"decision": status, "tier": tier or asked, "confidence": decision.confidence, "reason": reason}
        case moves.Try(step, again) if _is_retry(decision, event):
            assert isinstance(event, moves.AttemptFailed)
            said = {"decision": "retry", "tier": again.name, "reason": cause(event.failed)}
        case _:
            return None
    if made is not None and event is not None and event.step == step and said["decision"] != "missed":
        said |= _grounds(made, event, said["tier"])
    if isinstance(decision, moves.Escalate | moves.EndStep) and decision.verdict is not None:
        said |= _weighed(decision.verdict, event)
    else:
        said["accept_at"] = plan.step(step).accept_at
    return Why(step=step, **said)


def _weighed(verdict: Verdict, event: moves.Event | None) -> dict[str, Any]:
    """The threshold that was applied, and where tiers were weighed against their price what they were weighed at."""
    said: dict[str, Any] = {"rule": verdict.rule}
    if verdict.accept_at < NEVER:
        said["accept_at"] = verdict.accept_at
    if verdict.weighed and isinstance(event, moves.Answered):
        said |= {"weighed": verdict.weighed, "would_change": verdict.would_change}
        said["shadow_price"] = event.money.shadow_price
    return said


def _grounds(
    made: Made, event: moves.Answered | moves.AttemptFailed | moves.HoldRefused | moves.Recalled, tier: str | None
) -> dict[str, Any]:
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
