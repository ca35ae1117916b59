"""Looking behind accepted answers while a run goes on, and an alarm when they are not what was certified.

A share of the answers that were kept local is also asked of the dearest paid tier that can be asked; what it says
counts as the truth. It happens beside the tasks, out of a budget of its own, and changes no result. Where labels had
certified an error, an e-process (`drift`) watches it; after its alarm the step keeps nothing local for the rest of the
run.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from protocols.answers import Answer, Earlier
from protocols.ids import TaskId
from swarm.dispatch.drift import Drift
from swarm.dispatch.explore import shadowed
from swarm.dispatch.holds import Holds
from swarm.dispatch.learnt import comparable
from swarm.dispatch.once import ask_once
from swarm.dispatch.rules import LOCAL
from swarm.dispatch.setting import Setting
from swarm.errors import StoreError
from swarm.plan.plan import PlannedStep, Tier

log = structlog.get_logger(__name__)

COMPARED = ("classify", "extract")  # kinds whose outputs are the same where they say the same


class Watch:
    """One run's. `alarmed`: steps whose certificate no longer holds."""

    def __init__(self, setting: Setting, holds: Holds) -> None:
        self._s = setting
        self._holds = holds
        self._opening = asyncio.Lock()
        self._account: TaskId = f"explore-{setting.run}"
        self._opened = False
        self._looking: set[asyncio.Task[None]] = set()
        self._drifts = {
            name: Drift(rule.certificate.error)
            for name, rule in setting.rules.items()
            if rule.certificate is not None and rule.certificate.threshold is not None and setting.plan.aim.error
        }
        self.alarmed: set[str] = set()

    def accepted(self, task: TaskId, step: PlannedStep, given: dict[str, Any], kept: Earlier) -> None:
        """An answer was kept. Perhaps looks behind it, beside everything else."""
        local = next(t.kind for t in step.ladder if t.name == kept.tier) in LOCAL
        if self._s.plan.aim.explore == 0.0 or step.pack.kind not in COMPARED or not local:
            return
        tier = self._judge(step, kept.tier)
        if tier is not None and shadowed(task, step.name, self._s.plan.aim.explore):
            looking = asyncio.create_task(self._look(step, tier, given, kept))
            self._looking.add(looking)
            looking.add_done_callback(self._looking.discard)

    async def close(self) -> None:
        """Let what was asked be answered for a while, then give it up."""
        if self._looking:
            await asyncio.wait(self._looking, timeout=5.0)
        for looking in list(self._looking):
            looking.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)

    def _judge(self, step: PlannedStep, kept: str) -> Tier | None:
        """The dearest paid tier above the one that was kept; None where none can be asked: no other is the truth."""
        above = step.ladder[[t.name for t in step.ladder].index(kept) + 1 :]
        can = [t for t in above if t.kind == "remote" and t.name not in self._s.unavailable]
        return can[-1] if can else None

    async def _look(self, step: PlannedStep, tier: Tier, given: dict[str, Any], kept: Earlier) -> None:
        try:
            async with self._opening:
                if not self._opened:
                    await self._s.store.accept(self._s.run, self._account, self._s.plan.explore_limit)
                    self._opened = True
            reply = await ask_once(self._s, self._holds, self._account, step, tier, given, (kept,))
        except StoreError as e:
            log.warning("explore.not_paid", step=step.name, cause=str(e))
            return
        if isinstance(reply, Answer) and not reply.signals.checks_failed:
            self._compare(step.name, wrong=comparable(reply.output) != comparable(kept.output))

    def _compare(self, step: str, wrong: bool) -> None:
        drift = self._drifts.get(step)
        if drift is None or step in self.alarmed:
            return
        drift.observe(wrong)
        if drift.alarm:
            self.alarmed.add(step)
            log.warning(
                "certificate.broken", step=step, error=drift.error, answers=drift.wealth.n,
                remedy="nothing local is kept for this step in this run any more; calibrate it with new labels",
            )  # fmt: skip
