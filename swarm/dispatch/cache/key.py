"""What an answer depends on, as one name: when any of it changes, so does the name, and the old answer is not found."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from typing import Any

import msgspec

from protocols.control import Calibration
from swarm.dispatch.rules import Rule
from swarm.plan.plan import Aim, Plan, PlannedStep

FORMAT = 1  # raised when an answer would be kept or chosen differently

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def identity(
    step: PlannedStep,
    aim: Aim,
    models: Mapping[str, str],
    rule: Rule | None = None,
    calibrations: Mapping[str, Calibration] | None = None,
) -> str:
    """Of a step as it answers in this run: who is asked, and when the answer is kept.

    models: tier -> sha256 of the weights. calibrations: "specialist/tier" -> map, as the hosts say.
    """
    tiers = [tier.name for tier in step.ladder]
    own = {f"{step.specialist}/{tier}" for tier in tiers}
    said = {name: fitted for name, fitted in (calibrations or {}).items() if name in own}
    judged = None if rule is None else [rule.accept_at, rule.why, dict(rule.calibrations), sorted(rule.taught)]
    weights = {tier: models[tier] for tier in tiers if tier in models}
    return _digest([FORMAT, step.answers_hash, step.accept_at, weights, aim, judged, said])


def identities(
    plan: Plan,
    models: Mapping[str, str],
    rules: Mapping[str, Rule],
    calibrations: Mapping[str, Calibration],
) -> dict[str, str]:
    """Of each step that has a cache."""
    return {
        step.name: identity(step, plan.aim, models, rules.get(step.name), calibrations)
        for step in plan.steps
        if step.cache.kind != "off"
    }


def key(identity: str, given: Mapping[str, Any]) -> str:
    """Of one input to that step. Texts that Unicode holds for the same, and keys in any order, make no difference."""
    return _digest([identity, normal(given)])


def normal(value: Any) -> Any:
    """`value` with all its texts in normal form C."""
    match value:
        case str():
            return unicodedata.normalize("NFC", value)
        case Mapping():
            return {normal(name): normal(inner) for name, inner in value.items()}
        case list() | tuple():
            return [normal(inner) for inner in value]
        case _:
            return value


def _digest(content: Any) -> str:
    return hashlib.blake2b(_encode(content), digest_size=20).hexdigest()
