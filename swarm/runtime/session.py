"""One run of a swarm, on the swarm's own event loop: hosts, bus, store and dispatcher put together, and taken apart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from protocols.ids import RunId, new_id
from protocols.records import RunRecord
from protocols.tasks import Result, Task
from swarm.dispatch.dispatcher import Dispatcher, Publish, Setting
from swarm.dispatch.learnt import Learnt, load
from swarm.dispatch.purse import Purse
from swarm.dispatch.rules import rules, stale
from swarm.engine import remote
from swarm.errors import CalibrationError, StoreError
from swarm.models.store import default_home
from swarm.observe.receipt import Receipt, build
from swarm.plan.plan import Plan
from swarm.runtime.base import Runtime
from swarm.runtime.estimate import Estimator, baseline_price
from swarm.runtime.hosts import Hosts
from swarm.runtime.in_process import InProcessRuntime
from swarm.runtime.person import PersonFile
from swarm.runtime.placement import place
from swarm.state.base import Store
from swarm.state.store import open_store

log = structlog.get_logger(__name__)


class Session:
    """Made by `open`. `answer` may be called by any number of coroutines at once."""

    def __init__(self, setting: Setting, hosts: Hosts, owned: AsyncExitStack) -> None:
        self.setting = setting
        self.plan = setting.plan
        self.run = setting.run
        self.bus = setting.bus
        self.hosts = hosts
        self._store = setting.store
        self._dispatcher = Dispatcher(setting)
        self._owned = owned
        self._room = asyncio.Semaphore(self.plan.runtime.max_in_flight)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._first: float | None = None
        self._finished = False
        person = self.plan.runtime.person_file
        self._person = PersonFile(Path(person)) if person else None

    @classmethod
    async def open(
        cls,
        plan: Plan,
        runtime: Runtime,
        *,
        together: bool,
        local: Runtime | None = None,
        unavailable: Mapping[str, str] | None = None,
    ) -> Session:
        """Open the store, start the hosts, and begin a run. What was started is ended again when a part fails.

        `local` starts the host in this process. `unavailable`: tier -> why it cannot be asked; default: remote tiers
        without a key or a price.
        """
        async with AsyncExitStack() as owned:
            store = await open_store(plan.runtime.store or default_home() / "store.db")
            owned.push_async_callback(store.close)
            owned.push_async_callback(runtime.close)
            missing = dict(unavailable) if unavailable is not None else _unreachable(plan)
            hosts = Hosts(place(plan, frozenset(missing), together=together), runtime, local or InProcessRuntime())
            bus = await hosts.start(owned)
            models = {tier: sha256 for ready in hosts.ready.values() for tier, sha256 in ready.models.items()}
            taught = rules(plan, _learnt(plan, models), models)
            record = RunRecord(
                id=new_id("r"), swarm=plan.name, plan_hash=plan.hash, started=time.time(), about=_about(plan, missing)
            )
            if plan.tenant is not None:
                await store.tenant(plan.tenant, plan.tenant_limit)
            await store.begin(record, plan.run_limit, plan.tenant)
            purse = Purse(plan) if plan.aim.answer_micro_usd is not None else None
            setting = Setting(record.id, plan, bus, store, Estimator(), hosts.calibrations(), missing,
                              rules=taught, purse=purse)  # fmt: skip
            return cls(setting, hosts, owned.pop_all())

    def expect(self, tasks: int) -> None:
        """So many more tasks will come: a budget can be made to last them."""
        if (purse := self.setting.purse) is not None:
            purse.expected = (purse.expected or 0) + tasks

    async def answer(self, task: Task, publish: Publish | None) -> Result:
        """The task's terminal state; what a person should see is written before this returns."""
        current = asyncio.current_task()
        assert current is not None
        self._tasks.add(current)
        try:
            async with self._room:
                left_ms, left_of = self._left()
                if left_ms is not None:
                    task = msgspec.structs.replace(task, left_ms=left_ms, left_of=left_of)
                result = await self._dispatcher.run(task, publish or _nobody)
            if result.status == "person" and self._person is not None:
                await asyncio.shield(asyncio.to_thread(self._person.hand_over, task.input, result))
            return result
        finally:
            self._tasks.discard(current)

    async def receipt(self) -> Receipt:
        return await receipt_of(self._store, self.run)

    async def stop_tasks(self) -> None:
        running = list(self._tasks)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def finish(self) -> None:
        """End the run: nothing of it runs any more, and its receipt is final. May be called twice."""
        await self.stop_tasks()
        await self._dispatcher.close()
        if not self._finished:
            self._finished = True
            await self._store.end(self.run, time.time())

    async def close(self) -> None:
        try:
            await self.finish()
        finally:
            await self._owned.aclose()

    def _left(self) -> tuple[int | None, Literal["task", "run"]]:
        """Milliseconds that a task which starts now may take, and whether its own limit says so or the run's."""
        now = time.monotonic()
        self._first = self._first if self._first is not None else now
        own, whole = self.plan.task_limit.ms, self.plan.run_limit.ms
        if whole is None:
            return own, "task"
        left = max(1, whole - int((now - self._first) * 1000))
        return (own, "task") if own is not None and own <= left else (left, "run")


async def receipt_of(store: Store, run: RunId) -> Receipt:
    """The receipt of a run that the store knows, finished or not. Raises `StoreError` for an unknown one."""
    record = await store.run(run)
    if record is None:
        raise StoreError(f"run {run!r} is not in the store; `swarm runs` lists those that are")
    balance = await store.balance(f"run:{run}")
    return build(record, await store.attempts(run), await store.results(run), balance)


def _learnt(plan: Plan, models: Mapping[str, str]) -> Learnt | None:
    """What the swarm was calibrated with; a file that cannot be used, or describes steps as they were, is said."""
    if plan.learnt is None:
        return None
    try:
        learnt = load(Path(plan.learnt))
    except CalibrationError as e:
        log.warning("calibration.ignored", path=plan.learnt, cause=str(e))
        return None
    if changed := stale(plan, learnt, models):
        remedy = f"run `swarm calibrate {plan.name}` again"
        log.warning("calibration.stale", path=plan.learnt, steps=changed, remedy=remedy)
    return learnt


def _unreachable(plan: Plan) -> dict[str, str]:
    models = (model for model in plan.models.values() if model.kind == "remote")
    return {model.tier: why for model in models if (why := remote.unavailable(model)) is not None}


def _about(plan: Plan, missing: dict[str, str]) -> dict[str, Any]:
    """What the receipt needs to know about the run besides its attempts."""
    compared = baseline_price(plan.compare_with, plan.models)
    about: dict[str, Any] = {"unavailable": missing, "on_exhausted": plan.on_exhausted}
    about["ladders"] = [[step.name, [tier.name for tier in step.ladder]] for step in plan.steps]
    if compared is not None:
        model, price = compared
        prices = {"input": price.input_per_mtok, "output": price.output_per_mtok}
        about["baseline"] = {"model": model, "source": price.source, **prices}
    return about


def _nobody(_: object) -> None:
    """Nobody watches."""
