"""A cache as a run has it, asked and told by hand."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from dispatch_plans import plan, step

from protocols.ids import TaskId
from protocols.money import Amount
from swarm.dispatch.cache.kept import Kept
from swarm.dispatch.cache.recall import Recall, Recalled
from swarm.dispatch.setting import Setting
from swarm.engine.base import Embedder
from swarm.plan.plan import Caching, Plan
from swarm.state.memory import MemoryStore
from swarm.state.records import Records
from swarm.testing import VirtualClock

COST = Amount(tokens=100, micro_usd=40)


class Desk:
    """`recall` of a plan with one step, `intent`. What is computed for a text is its last word."""

    def __init__(self, caching: Caching, records: Records, *, tenant: str | None = None, models: str = "1",
                 embedder: Embedder | None = None, clock: VirtualClock | None = None) -> None:  # fmt: skip
        self.plan: Plan = replace(plan(replace(step("intent", "head"), cache=caching)), tenant=tenant)
        self.step = self.plan.steps[0]
        setting = Setting("r-1", self.plan, None, MemoryStore(), None)  # type: ignore[arg-type]  # nobody is asked here
        self.recall = Recall(setting, records, {"head": models}, embedder, clock or time.time)

    async def ask(self, text: str, task: TaskId) -> Recalled | None:
        return await self.recall.ask(self.step, {"text": text}, task)

    async def tell(self, text: str, task: TaskId) -> None:
        """The task has computed it."""
        output: dict[str, Any] = {"label": text.rsplit(maxsplit=1)[-1]}
        kept = Kept(output=output, tier="head", confidence=0.9, run="r-1", task=task, cost=COST)
        await self.recall.accepted(task, "intent", kept)

    async def answer(self, text: str, task: TaskId) -> Recalled | None:
        """As a task does it: ask, and compute what is not known."""
        known = await self.ask(text, task)
        if known is None:
            await self.tell(text, task)
        return known


def records() -> Records:
    return MemoryStore().caches
