"""Looking behind accepted answers while a run goes on, and an alarm when they are not what was certified.

A share of the answers that were kept local is also asked of the dearest paid tier that can be asked; what it says
counts as the truth. It happens beside the tasks, out of a budget of its own, and changes no result. Where labels had
certified an error, an e-process (`drift`) watches it; after its alarm the step keeps nothing local until it is
calibrated anew (`alarms`). What was said there, and of answers that escalated so far by themselves, is kept for the
next calibration (`lessons`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Set
from typing import Any

import structlog

from protocols.answers import Answer, Earlier
from protocols.ids import TaskId
from swarm.dispatch.alarms import Alarms
from swarm.dispatch.explore import propensity, shadowed
from swarm.dispatch.holds import Holds
from swarm.dispatch.lasting import Lasting
from swarm.dispatch.learnt import comparable
from swarm.dispatch.lessons import Lesson, Lessons
from swarm.dispatch.once import ask_once
from swarm.dispatch.rules import LOCAL
from swarm.dispatch.setting import Setting
from swarm.dispatch.ways import Way, ways
from swarm.errors import StoreError
from swarm.plan.plan import PlannedStep, Tier

log = structlog.get_logger(__name__)

COMPARED = ("classify", "extract")  # kinds whose outputs are the same where they say the same


class Watch:
    """One run's. `lasting` None: what is found is forgotten with the run."""

    def __init__(self, setting: Setting, holds: Holds, lasting: Lasting | None = None) -> None:
        self._s = setting
        self._holds = holds
        self._opening = asyncio.Lock()
        self._account: TaskId = f"explore-{setting.run}"
        self._opened = False
        self._looking: set[asyncio.Task[None]] = set()
        self._models = dict(lasting.models) if lasting is not None else {}
        self._lessons = Lessons(lasting) if lasting is not None else None
        certified = {name: rule.certificate for name, rule in setting.rules.items() if setting.plan.aim.error}
        self._alarms = Alarms(
            {name: c.error for name, c in certified.items() if c and c.threshold is not None}, lasting
        )

    @property
    def alarmed(self) -> Set[str]:
        """Steps whose certificate no longer holds; always the same set."""
        return self._alarms.raised

    async def begin(self) -> None:
        """Take up the alarms of earlier runs, before anything is kept. Raises `StoreError`."""
        await self._alarms.begin()

    def accepted(
        self, task: TaskId, step: PlannedStep, given: dict[str, Any], kept: Earlier, earlier: tuple[Earlier, ...] = ()
    ) -> None:
        """An answer was kept, after what `earlier` tiers had said. Perhaps looks behind it, beside everything else."""
        way = _way(step, kept)
        tier = self._judge(step, way.rung + 1)
        if tier is None or way.tier.kind not in LOCAL or not shadowed(task, step.name, self._s.plan.aim.explore):
            return
        looking = asyncio.create_task(self._look(task, step, tier, given, (*earlier, kept)))
        self._looking.add(looking)
        looking.add_done_callback(self._looking.discard)

    def escalated(
        self, task: TaskId, step: PlannedStep, given: dict[str, Any], earlier: tuple[Earlier, ...], dear: Earlier
    ) -> None:
        """A paid tier has answered what `earlier` ones were asked before; the dearest teaches what theirs is worth."""
        judge = self._judge(step)
        if judge is not None and judge.name == dear.tier and not dear.signals.checks_failed:
            self._learn(task, step, given, earlier, dear, propensity(False, self._s.plan.aim.explore))

    async def close(self) -> None:
        """Let what was asked be answered for a while, then give it up; what was learnt is written."""
        if self._looking:
            await asyncio.wait(self._looking, timeout=5.0)
        for looking in list(self._looking):
            looking.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)
        if self._lessons is not None:
            await self._lessons.close()

    def _judge(self, step: PlannedStep, above: int = 0) -> Tier | None:
        """The dearest paid tier from this rung on; None where none can be asked: no other is the truth."""
        can = self._paid(step, above) if step.pack.kind in COMPARED else []
        return can[-1] if can else None

    def _paid(self, step: PlannedStep, above: int = 0) -> list[Tier]:
        return [t for t in step.ladder[above:] if t.kind == "remote" and t.name not in self._s.unavailable]

    # --- looking

    async def _look(
        self, task: TaskId, step: PlannedStep, tier: Tier, given: dict[str, Any], said: tuple[Earlier, ...]
    ) -> None:
        """Ask the judge; before that, where it will be remembered, every local way that was not taken: they are free.

        Without them a lesson would say nothing about a threshold at which they would have been.
        """
        kept = said[-1]
        try:
            await self._open()
            for way in _free(step, kept) if self._lessons is not None else ():
                reply = await ask_once(self._s, self._holds, self._account, step, way.tier, given, said, way.samples)
                said = (*said, _earlier(way.name, reply)) if isinstance(reply, Answer) else said
            reply = await ask_once(self._s, self._holds, self._account, step, tier, given, said)
        except StoreError as e:
            log.warning("explore.not_paid", step=step.name, cause=str(e))
            return
        if isinstance(reply, Answer) and not reply.signals.checks_failed:
            self._learn(task, step, given, said, _earlier(tier.name, reply), propensity(True, self._s.plan.aim.explore))
            await self._alarms.observe(step.name, wrong=comparable(reply.output) != comparable(kept.output))

    async def _open(self) -> None:
        """Open the account that pays for looking."""
        async with self._opening:
            if not self._opened:
                try:
                    await self._s.store.accept(self._s.run, self._account, self._s.plan.explore_limit)
                except StoreError:  # a run that is gone on with has it already
                    await self._s.store.balance(f"task:{self._account}")
                self._opened = True

    def _learn(
        self, task: TaskId, step: PlannedStep, given: dict[str, Any], earlier: tuple[Earlier, ...], dear: Earlier,
        chance: float,
    ) -> None:  # fmt: skip
        if self._lessons is None:
            return
        said = tuple(e for e in earlier if _way(step, e).tier.kind in LOCAL)
        if said:
            lesson = Lesson(
                step=step.name, answers_hash=step.answers_hash, task=task, input=given, said=said, teacher=dear.tier,
                output=dear.output, propensity=chance, floor=self._floor(step), models=self._models,
            )  # fmt: skip
            self._lessons.add(lesson)

    def _floor(self, step: PlannedStep) -> float:
        """The least chance that any local answer to this step has to be seen by the judge, as things stand.

        0 where some are settled otherwise: weighed and found not worth their price, or by a cheaper paid tier.
        """
        if len(self._paid(step)) > 1 or self._s.plan.aim.answer_micro_usd is not None:
            return 0.0
        rule = self._s.rules.get(step.name)
        all_escalate = step.name in self.alarmed or (rule is not None and rule.accept_at is None)
        return 1.0 if all_escalate else self._s.plan.aim.explore


def _way(step: PlannedStep, said: Earlier) -> Way:
    """How this answer was got."""
    return next(way for way in ways(step) if way.name == said.tier)


def _free(step: PlannedStep, kept: Earlier) -> list[Way]:
    """The local ways that come after that of the answer that was kept."""
    known = ways(step)
    return [way for way in known[known.index(_way(step, kept)) + 1 :] if way.tier.kind in LOCAL]


def _earlier(name: str, answer: Answer) -> Earlier:
    return Earlier(name, answer.output, answer.signals)
