"""What an attempt may cost, before it is made. Pure arithmetic; the store does the holding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from protocols.money import Amount, dollars
from swarm.plan.plan import PlannedStep, Tier
from swarm.state.base import Refusal


class Estimator(Protocol):
    """Prices attempts. An attempt never uses more than its hold: `Ask.max_tokens` carries the limit to the host."""

    def hold(self, step: PlannedStep, tier: Tier, given: Mapping[str, Any]) -> Amount:
        """The most this attempt may cost: tokens of prompt and answer, and their price."""
        ...

    def remote_tokens(self, step: PlannedStep, given: Mapping[str, Any], output: Mapping[str, Any]) -> tuple[int, int]:
        """About how many tokens the remote model would read and write for this answer; (0, 0) for plain code."""
        ...


def explain(refusal: Refusal, step: str, tier: str) -> str:
    """A refused hold as a sentence: subject, limit, remedy."""
    scope = refusal.account.split(":", 1)[0]
    if refusal.unit == "usd":
        wanted, left = dollars(refusal.wanted), dollars(refusal.left)
    else:
        wanted, left = f"{refusal.wanted:,} tokens", f"{refusal.left:,} tokens"
    remedy = f"raise budget.{scope}.{refusal.unit}"
    return f"step {step!r} at tier {tier!r} needs {wanted}, {left} left in this {scope}; {remedy}"
