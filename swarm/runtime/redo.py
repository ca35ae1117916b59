"""A write of which nobody knows whether it was done, made again at a person's word."""

from __future__ import annotations

from pathlib import Path

import msgspec

from protocols.answers import Answer, Ask, Failed
from protocols.ids import RunId, new_id
from swarm.dispatch.effects import outcome
from swarm.dispatch.outbox import Outbox
from swarm.errors import StoreError
from swarm.plan.plan import PlannedStep
from swarm.runtime.launch import planned
from swarm.specialists.tool import Tool
from swarm.state.base import Store, unknown_run


async def redo(store: Store, run: RunId, key: str) -> Answer | Failed:
    """What the tool says now, called here with the same inputs and the same key. It is noted in the run's outbox.

    The task's result stays what it is; a run that is gone on with afterwards takes the answer from there. Raises
    `StoreError` for what the store does not know, or a swarm file that is not what the run was made by.
    """
    outbox = Outbox(store.records, run)
    effect = await outbox.find(key)
    if effect is None:
        raise StoreError(f"run {run!r} has no effect {key!r}; `swarm effects {run}` lists those it has")
    step = await _step(store, run, effect.step)
    again = msgspec.structs.replace(effect, state="intended", reply=None, why="a person has asked for it again")
    await outbox.put(key, again)
    ask = Ask(id=new_id("a"), task=effect.task, step=step.name, specialist=step.specialist, tier="code",
              input=effect.input, max_tokens=0, key=key)  # fmt: skip
    assert step.pack.tools is not None
    reply, noted = outcome(step, ask, key, await Tool(step.pack, Path(step.pack.tools)).answer(ask))
    await outbox.put(key, noted or effect)
    return reply


async def _step(store: Store, run: RunId, name: str) -> PlannedStep:
    record = await store.run(run)
    if record is None:
        raise unknown_run(run)
    if (file := record.about.get("file")) is None:
        raise StoreError(
            f"run {run!r} was made without a swarm file, so nobody knows its tools any more; settle it by hand"
        )
    plan = planned(file)
    if plan.hash != record.plan_hash:
        raise StoreError(
            f"run {run!r} was made by plan {record.plan_hash[:12]}, and {file} is now {plan.hash[:12]}; put the swarm "
            "file and its packs back as they were, or settle it by hand"
        )
    return plan.step(name)
