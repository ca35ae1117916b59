"""Plans for the tests of the dispatcher, without files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from protocols.control import ModelSpec
from protocols.money import Limit
from protocols.packs import Pack
from swarm.config.references import Binding, Ref
from swarm.config.schema import Runtime
from swarm.plan.plan import Plan, PlannedStep, Tier

REMOTE = ModelSpec(
    tier="remote", kind="remote", name="gpt", input_micro_usd_per_mtok=1_000_000, output_micro_usd_per_mtok=1_000_000
)
TIERS = {
    "code": Tier("code", "code"),
    "head": Tier("head", "head", ModelSpec(tier="head", kind="head", name="embedder")),
    "small": Tier("small", "small", ModelSpec(tier="small", kind="small", name="lm")),
    "remote": Tier("remote", "remote", REMOTE),
    "person": Tier("person", "person"),
}


def step(name: str, *tiers: str, needs: Sequence[str] = (), accept_at: float = 0.8, samples: int = 1) -> PlannedStep:
    """A step that reads the task's text and all of each step in `needs`."""
    inputs: dict[str, Binding] = {"text": Ref("input", ("text",)), **{need: Ref(need, ()) for need in needs}}
    ladder = tuple(TIERS[tier] for tier in tiers)
    return PlannedStep(
        name=name,
        specialist=f"does_{name}",
        pack=Pack(name=name, kind="classify"),
        ladder=ladder,
        inputs=inputs,
        needs=frozenset(needs),
        accept_at=accept_at,
        samples=samples,
    )


def plan(
    *steps: PlannedStep,
    on_exhausted: Literal["stop", "degrade"] = "degrade",
    task: Limit | None = None,
    run: Limit | None = None,
) -> Plan:
    models = {tier.name: tier.model for s in steps for tier in s.ladder if tier.model is not None}
    return Plan(
        name="p", description="", steps=steps, task_limit=task or Limit(), run_limit=run or Limit(),
        on_exhausted=on_exhausted, compare_with=None, models=models, runtime=Runtime(), hash="h",
    )  # fmt: skip
