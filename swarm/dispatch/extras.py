"""What a step has beside its tiers: earlier answers, earlier notes, and an outbox for what it does to the world.

Each is left out where a run has none of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from protocols.answers import Answer, Ask, Failed, Signals
from protocols.ids import RunId, TaskId
from protocols.money import Amount
from swarm.dispatch.cache.kept import Kept
from swarm.dispatch.moves import EndStep
from swarm.plan.plan import PlannedStep

if TYPE_CHECKING:
    from swarm.bus.bus import Bus
    from swarm.dispatch.cache.recall import Recall, Recalled
    from swarm.dispatch.effects import Effects
    from swarm.dispatch.memory.memory import Memory

NOTHING = Amount()
NO_SIGNALS = Signals()


@dataclass(frozen=True, slots=True)
class Extras:
    """Of a run."""

    recall: Recall | None = None
    memory: Memory | None = None
    effects: Effects | None = None

    async def close(self) -> None:
        if self.recall is not None:
            await self.recall.close()


NONE = Extras()


@dataclass(slots=True)
class _Asked:
    """A step that has been asked. `key`: under which it remembers; `plain`: its inputs without what it remembers."""

    key: str | None
    plain: Mapping[str, Any]
    given: dict[str, Any]
    cost: Amount = NOTHING
    signals: Signals = NO_SIGNALS


class TaskExtras:
    """Of a task. `empty`: the run has none of them."""

    def __init__(self, extras: Extras, run: RunId, task: TaskId) -> None:
        self._x = extras
        self._run = run
        self._task = task
        self._asked: dict[str, _Asked] = {}
        self.empty = extras == NONE

    async def first(
        self, step: PlannedStep, given: dict[str, Any], key: str | None, *, alarmed: bool = False
    ) -> Recalled | None:
        """Before the first attempt at a step: its notes are read, and it may be answered from before.

        Not where it is `alarmed`: what was kept then is no longer believed.
        """
        if step.name in self._asked:
            return None
        plain = given
        if self._x.memory is not None and step.memory is not None:
            given = await self._x.memory.recall(self._task, step, key, plain)
        self._asked[step.name] = _Asked(key, plain, given)
        if self._x.recall is None or alarmed:
            return None
        return await self._x.recall.ask(step, given, self._task)

    def given(self, step: PlannedStep) -> dict[str, Any]:
        """The step's inputs, with what it remembers."""
        return self._asked[step.name].given

    async def send(self, bus: Bus, step: PlannedStep, ask: Ask) -> Answer | Failed:
        """Ask a host, if what it said to this before is not known; a write goes by the outbox.

        Raises `StoreError`: it was not sent then.
        """
        recall, effects = self._x.recall, self._x.effects
        if recall is not None and (known := await recall.said(step, ask)) is not None:
            return known
        reply = await (bus.ask(ask) if effects is None else effects.ask(step, ask, bus.ask))
        if recall is not None:
            await recall.heard(step, ask, reply)
        return reply

    def used(self, step: str, cost: Amount, signals: Signals | None) -> None:
        """An attempt is over."""
        if not self.empty and (asked := self._asked.get(step)) is not None:
            asked.cost += cost
            asked.signals = signals or asked.signals

    async def ended(self, step: PlannedStep, end: EndStep) -> None:
        """A step is over, and journalled."""
        if self.empty:
            return
        asked, recall, memory = self._asked.pop(step.name, None), self._x.recall, self._x.memory
        if asked is None:
            return
        if end.status != "accepted" or end.output is None:
            if recall is not None:
                recall.not_kept(self._task, step.name, gone=end.status == "skipped")  # time or money ended it
            return
        assert end.tier is not None and end.confidence is not None
        if recall is not None:
            kept = Kept(
                output=end.output, tier=end.tier, confidence=end.confidence, signals=asked.signals, run=self._run,
                task=self._task, cost=asked.cost, at=time.time(),
            )  # fmt: skip
            await recall.accepted(self._task, step.name, kept)
        if memory is not None:
            await memory.keep(self._task, step, asked.key, asked.plain, end.output)

    def over(self) -> None:
        """The task is over, however it ended."""
        if self._x.recall is not None:
            self._x.recall.over(self._task)
