"""The real dispatcher over a real bus and a real store in memory; hosts are scripted, prices fixed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from protocols.control import Calibration
from protocols.events import Event
from protocols.ids import HostId
from protocols.money import Amount
from protocols.records import Attempt, Balance, RunRecord
from protocols.tasks import Result, Task
from swarm.bus.base import Link
from swarm.bus.bus import Bus
from swarm.bus.local import LocalLink
from swarm.bus.scripted import ScriptedHost
from swarm.dispatch.dispatcher import Dispatcher, Setting
from swarm.dispatch.purse import Purse
from swarm.dispatch.rules import Rule
from swarm.plan.plan import Plan, PlannedStep, Tier
from swarm.state.base import Store
from swarm.state.sqlite import SqliteStore
from swarm.testing import Answers, Script

RUN = "r-1"
HOLDS = {"small": Amount(tokens=100), "remote": Amount(tokens=200, micro_usd=1000)}


class FixedPrices:
    """An estimator whose holds go by the tier alone."""

    def __init__(self, holds: Mapping[str, Amount] = HOLDS) -> None:
        self._holds = holds

    def hold(self, step: PlannedStep, tier: Tier, given: Mapping[str, Any]) -> Amount:
        return self._holds.get(tier.name, Amount())

    def remote_tokens(self, step: PlannedStep, given: Mapping[str, Any], output: Mapping[str, Any]) -> tuple[int, int]:
        return 50, 5


@dataclass
class Stage:
    """What a test looks at."""

    dispatcher: Dispatcher
    store: Store
    script: Script
    events: list[Event] = field(default_factory=list)

    async def run(self, id: str = "t-1", *, left_ms: int | None = None, **given: Any) -> Result:
        task = Task(id=id, run=RUN, input=given or {"text": "hi"}, left_ms=left_ms)
        return await self.dispatcher.run(task, self.events.append)

    def kinds(self) -> list[str]:
        """The events seen, by name and step."""
        return [" ".join(filter(None, (type(e).__name__, getattr(e, "step", "")))) for e in self.events]

    async def balance(self, account: str = f"run:{RUN}") -> Balance:
        return await self.store.balance(account)

    async def attempts(self) -> list[Attempt]:
        return await self.store.attempts(RUN)

    async def outcomes(self) -> list[tuple[str, str, str]]:
        return sorted((a.step, a.tier, a.outcome) for a in await self.attempts())


@asynccontextmanager
async def staged(
    plan: Plan,
    answers: Script | Answers,
    *,
    hosts: int = 1,
    prices: FixedPrices | None = None,
    wrap: Callable[[Store], Store] = lambda store: store,
    calibrations: Mapping[str, Calibration] | None = None,
    unavailable: Mapping[str, str] | None = None,
    rules: Mapping[str, Rule] | None = None,
    expected: int | None = None,
) -> AsyncIterator[Stage]:
    """A stage for one run of `plan`. `wrap` may put something between the dispatcher and the store."""
    script = answers if isinstance(answers, Script) else Script(answers)

    async def host(name: HostId) -> Link:
        return LocalLink(name, ScriptedHost(script, host=name))

    store = await SqliteStore.open(":memory:")
    if plan.tenant is not None:
        await store.tenant(plan.tenant, plan.tenant_limit)
    record = RunRecord(id=RUN, swarm=plan.name, plan_hash=plan.hash, started=0.0)
    await store.begin(record, plan.run_limit, plan.tenant)
    serves = frozenset((step.specialist, tier.name) for step in plan.steps for tier in step.ladder)
    async with Bus([(await host(f"host-{i}"), serves) for i in range(hosts)], host) as bus:
        purse = Purse(plan, expected) if plan.aim.answer_micro_usd is not None else None
        setting = Setting(RUN, plan, bus, wrap(store), prices or FixedPrices(), calibrations or {}, unavailable or {},
                          rules=rules or {}, purse=purse)  # fmt: skip
        stage = Stage(Dispatcher(setting), store, script)
        yield stage
        await stage.dispatcher.close()
    await store.close()
