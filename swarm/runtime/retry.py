"""One attempt made again, at a person's word: a run of its own, with one task of one attempt."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec

from protocols.answers import Ask
from protocols.ids import new_id
from protocols.money import Limit
from protocols.tasks import Result, StepResult, Task
from swarm.dispatch import moves
from swarm.dispatch.attempts import Attempts, Made
from swarm.dispatch.holds import Holds
from swarm.dispatch.journal import Journal, encode
from swarm.errors import SwarmError
from swarm.plan.plan import Plan, PlannedStep, Tier
from swarm.runtime.run import Run, Shop


async def retried(shop: Shop, ask: Ask) -> Result:
    """What the tier says now to what `ask` asked; paid and journalled like any attempt, by the budgets of the plan.

    Raises `SwarmError` for a write, and where the plan has that step or tier no more; and `StoreError`.
    """
    if ask.key or ask.once:
        raise SwarmError(
            f"step {ask.step!r} writes to the world outside, and nobody knows whether it did; `swarm effects RUN` "
            "shows and settles it"
        )
    step, tier = _rung(shop.plan, ask)
    run = await Run.begin(shop, new_id("r"))
    task = Task(id=new_id("t"), run=run.id, input=ask.input, left_ms=shop.plan.task_limit.ms)
    made = list[Made]()
    try:
        limited = None if shop.plan.step_limit == Limit() else {step.name: shop.plan.step_limit}
        await shop.store.accept(run.id, task.id, shop.plan.task_limit, limited, body=encode(task))
        holds = Holds(shop.store, run.id)
        anew = replace(run.setting, extras=replace(run.setting.extras, recall=None))  # not what was said before
        attempts = Attempts(anew, holds, task, _nobody, made.append)
        await attempts.make(moves.Try(step.name, tier, ask.earlier), ask.input)
    finally:
        result = await asyncio.shield(asyncio.ensure_future(_ended(shop, run, task, made)))
    return result


async def _ended(shop: Shop, run: Run, task: Task, made: list[Made]) -> Result:
    """Journal what came of it; without an attempt, that none was made."""
    try:
        journal = Journal(shop.store, run.id, Holds(shop.store, run.id))
        result = Result(task=task.id, status="cancelled")
        if made:
            journal.over(made[0], "accepted" if isinstance(made[0].event, moves.Answered) else "failed")
            await journal.write()
            result = msgspec.structs.replace(_result(task, made[0]), cost=journal.cost)
        await shop.store.finish(run.id, result)
        return result
    finally:
        await run.finish()


def _rung(plan: Plan, ask: Ask) -> tuple[PlannedStep, Tier]:
    for step in plan.steps:
        for tier in step.ladder:
            if (step.name, tier.name) == (ask.step, ask.tier):
                return step, tier
    raise SwarmError(
        f"swarm {plan.name!r} has no tier {ask.tier!r} of step {ask.step!r} any more; put its file back as it was "
        "to ask again"
    )


def _result(task: Task, made: Made) -> Result:
    name = made.attempt.step
    match made.event:
        case moves.Answered(tier=tier, output=output, confidence=sure):
            kept = StepResult(step=name, status="accepted", output=output, tier=tier, confidence=sure)
            return Result(task=task.id, status="done", output={name: output}, steps={name: kept}, confidence=sure)
        case moves.AttemptFailed(failed=failed):
            reason = f"{failed.reason}: {failed.detail}" if failed.detail else failed.reason
            return Result(task=task.id, status="failed", reason=reason)
        case moves.HoldRefused(detail=detail):
            return Result(task=task.id, status="budget_exhausted", reason=detail)
        case _:
            return Result(task=task.id, status="cancelled")


def _nobody(_: Any) -> None:
    """Nobody watches."""
