"""Every tier's answer to labelled items: what a swarm is calibrated with.

An item is `{"input": {...}, "labels": {"STEP": {...}}}`; a swarm of one step may say `"label": {...}` instead. A step
is asked with what it would be given if the steps before it had answered as their labels say; where such a label is
missing, the step is skipped for that item. Tiers are asked in the order of the ladder, in every way that they can be
asked (`ways`), each told what those before it said, as in a run whose every answer escalates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protocols.answers import Answer, Earlier
from protocols.ids import TaskId, new_id
from protocols.money import Limit
from swarm.dispatch.accounts import explain
from swarm.dispatch.holds import Holds
from swarm.dispatch.learnt import Labels, Seen, comparable, is_right
from swarm.dispatch.once import ask_once
from swarm.dispatch.rules import LOCAL
from swarm.dispatch.setting import Setting
from swarm.dispatch.ways import Way, ways
from swarm.errors import CalibrationError, SwarmError
from swarm.plan.plan import MissingInput, Plan, PlannedStep, resolve
from swarm.state.base import Refusal


@dataclass(frozen=True, slots=True)
class Item:
    """A task's input and the right outputs of its steps."""

    input: Mapping[str, Any]
    labels: Mapping[str, Mapping[str, Any]]


def item_of(plan: Plan, raw: Mapping[str, Any], where: str) -> Item:
    """The item that a line of the labelled file stands for. Raises `CalibrationError` naming `where`."""
    labels = raw.get("labels")
    if labels is None and "label" in raw and len(plan.steps) == 1:
        labels = {plan.steps[0].name: raw["label"]}
    if not isinstance(raw.get("input"), Mapping) or not isinstance(labels, Mapping):
        raise CalibrationError(f'{where}: expected {{"input": {{...}}, "labels": {{"STEP": {{...}}}}}}')
    known = {step.name for step in plan.steps}
    for name, label in labels.items():
        if name not in known:
            raise CalibrationError(f"{where}: labels a step {name!r} that the swarm does not have")
        if not isinstance(label, Mapping) or not label:
            raise CalibrationError(f"{where}: the label of step {name!r} is no mapping from output names to values")
    return Item(raw["input"], labels)


async def labelled(
    setting: Setting, items: Sequence[Item], tell: Callable[[int], None], *, paid: bool = False
) -> dict[str, Labels]:
    """What the tiers of every step say of the items; `tell` gets the number of items done. `paid`: remote tiers too."""
    holds = Holds(setting.store, setting.run)
    plan, room, done = setting.plan, asyncio.Semaphore(setting.plan.runtime.max_in_flight), 0

    async def one(item: Item) -> dict[str, dict[str, Seen] | None]:
        nonlocal done
        async with room:
            task = new_id("t")
            await setting.store.accept(
                setting.run, task, Limit()
            )  # more is asked than of a task; the run's limit holds
            seen = {step.name: await _step(setting, holds, task, step, item, paid) for step in plan.steps}
        done += 1
        tell(done)
        return seen

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except* SwarmError as errors:  # the others were cancelled, and are over
        raise errors.exceptions[0] from None
    answered = [task.result() for task in tasks]
    found = {}
    for step in plan.steps:
        rows = [seen for each in answered if (seen := each[step.name])]
        found[step.name] = Labels(answers_hash=step.answers_hash, rows=tuple(rows), skipped=len(items) - len(rows))
    return found


async def _step(
    setting: Setting, holds: Holds, task: TaskId, step: PlannedStep, item: Item, paid: bool
) -> dict[str, Seen] | None:
    """By way; None where the item says nothing about this step."""
    if step.name not in item.labels:
        return None
    try:
        given = resolve(step, item.input, item.labels)
    except MissingInput:
        return None
    seen: dict[str, Seen] = {}
    earlier: tuple[Earlier, ...] = ()
    for way in ways(step):
        tier = way.tier
        if tier.kind not in LOCAL and not (paid and tier.kind == "remote" and tier.name not in setting.unavailable):
            continue
        answer = await _asked(setting, holds, task, step, way, given, earlier)
        if answer is not None:
            right = is_right(answer.output, item.labels[step.name]) and not answer.signals.checks_failed
            seen[way.name] = Seen(
                signals=answer.signals, correct=right, answer=comparable(answer.output),
                micro_usd=answer.usage.micro_usd, ms=answer.usage.ms,
            )  # fmt: skip
            earlier += (Earlier(way.name, answer.output, answer.signals),)
    return seen


async def _asked(
    setting: Setting,
    holds: Holds,
    task: TaskId,
    step: PlannedStep,
    way: Way,
    given: dict[str, Any],
    earlier: tuple[Earlier, ...],
) -> Answer | None:
    """The answer got this way; None where there is none. Raises `CalibrationError` where the budget forbids it."""
    reply = await ask_once(setting, holds, task, step, way.tier, given, earlier, way.samples)
    if isinstance(reply, Refusal):
        raise CalibrationError(f"calibrating stopped: {explain(reply, step.name, way.tier.name)}, or give fewer items")
    return reply if isinstance(reply, Answer) else None
