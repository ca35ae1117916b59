"""A run's watch over a real bus and a real store, beside no dispatcher; hosts are scripted, prices fixed."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from dispatch_plans import plan, step
from dispatch_stage import RUN, FixedPrices

from protocols.answers import Earlier, Signals
from protocols.ids import HostId
from protocols.records import RunRecord
from swarm.bus.base import Link
from swarm.bus.bus import Bus
from swarm.bus.local import LocalLink
from swarm.bus.scripted import ScriptedHost
from swarm.dispatch.certify import Certificate
from swarm.dispatch.holds import Holds
from swarm.dispatch.lasting import Lasting, scope_of
from swarm.dispatch.rules import Rule
from swarm.dispatch.setting import Setting
from swarm.dispatch.watch import Watch
from swarm.plan.plan import Aim, Plan
from swarm.state.memory import MemoryStore
from swarm.state.records import MemoryRecords, Records
from swarm.testing import Answers, Script

A, B = {"label": "a"}, {"label": "b"}
CERTIFIED = Rule(0.7, "certified at 0.7", Certificate(0.7, 0.05, 0.95, 400, 200, 2, 0.03, 0.5, 0))
NOTHING = Rule(None, "not certified")


def records() -> MemoryRecords:
    return MemoryRecords(lambda: None, lambda: 1_000.0)


def watched(*ladder: str, error: float | None = 0.05, explore: float = 1.0, **aim: Any) -> Plan:
    """A plan of one step `s` that is looked behind."""
    made = plan(dataclasses.replace(step("s", *ladder), answers_hash="now"))
    return dataclasses.replace(made, aim=Aim(error=error, explore=explore, **aim))


def said(tier: str, output: dict[str, str], p: float = 0.9) -> Earlier:
    return Earlier(tier, output, Signals(p=p))


@asynccontextmanager
async def opened(made: Plan, answers: Answers, rule: Rule) -> AsyncIterator[tuple[Setting, Script]]:
    """The setting of one run that has begun, and what its hosts are asked."""
    script = Script(answers)

    async def host(name: HostId) -> Link:
        return LocalLink(name, ScriptedHost(script, host=name))

    store = MemoryStore()
    await store.begin(RunRecord(id=RUN, swarm=made.name, plan_hash=made.hash, started=0.0), made.run_limit, None)
    serves = frozenset((one.specialist, tier.name) for one in made.steps for tier in one.ladder)
    async with Bus([(await host("host-0"), serves)], host) as bus:
        yield Setting(RUN, made, bus, store, FixedPrices(), rules={"s": rule}), script
    await store.close()


@asynccontextmanager
async def watching(
    made: Plan,
    answers: Answers,
    kept: Records | None,
    *,
    rule: Rule = CERTIFIED,
    calibration: str = "c-1",
    models: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[Watch, Script]]:
    """The watch of one run. `kept`: what outlasts it."""
    async with opened(made, answers, rule) as (setting, script):
        lasting = None
        if kept is not None:
            lasting = Lasting(kept, scope_of(made), calibration, models or {}, now=lambda: 500.0)
        watch = Watch(setting, Holds(setting.store, RUN), lasting)
        await watch.begin()
        yield watch, script
        await watch.close()
