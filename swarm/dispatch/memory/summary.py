"""Notes made into one by a specialist of the swarm, held and paid by the task that found them to be too many."""

from __future__ import annotations

from protocols.answers import Answer
from protocols.ids import TaskId
from swarm.dispatch.holds import Holds
from swarm.dispatch.memory.memory import Summarise
from swarm.dispatch.once import ask_once
from swarm.dispatch.setting import Setting
from swarm.plan.plan import PlannedStep


def summariser(setting: Setting, holds: Holds) -> Summarise:
    """Asks the tiers of a summarising specialist in their order, until one has a text."""

    async def summarise(task: TaskId, step: PlannedStep, text: str) -> str | None:
        given = dict.fromkeys(step.inputs, text)
        for tier in step.ladder:
            if tier.kind == "person" or tier.name in setting.unavailable:
                continue
            reply = await ask_once(setting, holds, task, step, tier, given, ())
            if isinstance(reply, Answer) and isinstance(said := reply.output.get("text"), str) and said.strip():
                return said
        return None

    return summarise
