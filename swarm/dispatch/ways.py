"""The ways to get an answer to a step: each tier, and a local language model again with several candidates. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from swarm.plan.plan import PlannedStep, Tier

SAMPLED = "*"  # no tier has it in its name


@dataclass(frozen=True, slots=True)
class Way:
    """`name`: of its answer; `rung`: its tier's place in the ladder; `samples`: candidates to choose from."""

    name: str
    rung: int
    tier: Tier
    samples: int = 1


def asked_as(tier: str, samples: int) -> str:
    """The name of an answer: its tier's, with a star where it was chosen from several candidates.

    The two are different things to learn about, as two tiers are.
    """
    return tier + SAMPLED if samples > 1 else tier


def ways(step: PlannedStep) -> list[Way]:
    """All of them, in the order of the ladder; a person gives no answer."""
    found = []
    for rung, tier in enumerate(step.ladder):
        if tier.kind == "person":
            continue
        found.append(Way(tier.name, rung, tier))
        if (samples := samples_of(step, tier)) > 1:
            found.append(Way(asked_as(tier.name, samples), rung, tier, samples))
    return found


def samples_of(step: PlannedStep, tier: Tier) -> int:
    """How many candidates this tier may be asked for; what is recorded was said once."""
    return step.samples if tier.kind == "small" and not tier.recorded else 1


def rung_of(step: PlannedStep, tier: str) -> int:
    """The place in the ladder of the tier of this name."""
    for rung, each in enumerate(step.ladder):
        if each.name == tier:
            return rung
    raise KeyError(tier)
