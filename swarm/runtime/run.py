"""One run: its record and accounts in the store, its dispatcher, its tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from protocols.ids import RunId, TaskId, new_id
from protocols.records import Attempt, RunRecord
from protocols.tasks import Result, Task
from swarm.bus.bus import Bus
from swarm.dispatch.again import Past
from swarm.dispatch.cache.recall import Recall
from swarm.dispatch.dispatcher import Dispatcher, Publish, Setting
from swarm.dispatch.effects import Effects
from swarm.dispatch.extras import Extras
from swarm.dispatch.holds import Holds
from swarm.dispatch.lasting import Lasting, scope_of
from swarm.dispatch.memory.memory import Memory
from swarm.dispatch.memory.notebook import Notebook
from swarm.dispatch.memory.summary import summariser
from swarm.dispatch.outbox import Outbox
from swarm.dispatch.purse import Purse
from swarm.dispatch.rules import Rule, digest
from swarm.engine.base import Embedder
from swarm.errors import StoreError
from swarm.observe.receipt import Receipt, build
from swarm.plan.plan import Plan
from swarm.runtime import worker
from swarm.runtime.estimate import Estimator, baseline_price
from swarm.runtime.hosts import Hosts
from swarm.runtime.person import PersonFile
from swarm.state.base import Store
from swarm.state.lease import leased


@dataclass(frozen=True, slots=True)
class Shop:
    """What the runs of one launched swarm share. `note`: what the caller wants kept with the run."""

    plan: Plan
    store: Store
    hosts: Hosts
    bus: Bus
    rules: Mapping[str, Rule]
    unavailable: Mapping[str, str]
    learnt_sha256: str | None = None
    note: Mapping[str, Any] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    embedder: Embedder | None = None  # for what is like what was asked before


def setting_of(shop: Shop, id: RunId, store: Store, expected: int | None = None) -> Setting:
    """All that the tasks of a run share, with what its steps have beside their tiers."""
    plan = shop.plan
    purse = Purse(plan, expected) if plan.aim.answer_micro_usd is not None else None
    lasting = Lasting(store.records, scope_of(plan), shop.learnt_sha256 or "", shop.hosts.models())
    setting = Setting(id, plan, shop.bus, store, Estimator(), shop.hosts.calibrations(), shop.unavailable, shop.clock,
                      rules=shop.rules, purse=purse, lasting=lasting, loop=asyncio.get_running_loop())  # fmt: skip
    steps = plan.asked()
    memory = effects = recall = None
    if any(step.memory is not None for step in steps):
        summarise = summariser(setting, Holds(store, id))
        memory = Memory(Notebook(store.records, scope_of(plan)), summarise)
    if any(step.pack.effects == "write" for step in steps):
        effects = Effects(Outbox(store.records, id), plan.hash, id)
    if any(step.cache.kind != "off" for step in steps):
        recall = Recall(setting, store.caches, shop.hosts.models(), shop.embedder)
    return replace(setting, extras=Extras(recall, memory, effects))


class Run:
    """Made by `begin` or `reopen`. `answer` may be called by any number of coroutines at once."""

    def __init__(self, shop: Shop, id: RunId, expected: int | None = None) -> None:
        self.id = id
        plan = shop.plan
        self._store = leased(shop.store, id, plan.run_limit)
        self.setting = setting_of(shop, id, self._store, expected)
        self._plan = plan
        self._dispatcher = Dispatcher(self.setting)
        self._room = asyncio.Semaphore(plan.runtime.max_in_flight)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._first: float | None = None
        self._finished = False
        self.nonce = new_id("w")
        self._known: list[Result] = []  # of a run that was reopened, until `go_on`
        self._open: list[tuple[Task, Past]] = []
        self._person = PersonFile(Path(plan.runtime.person_file)) if plan.runtime.person_file else None

    @classmethod
    async def begin(cls, shop: Shop, id: RunId, expected: int | None = None) -> Run:
        """A new run. Raises `StoreError`."""
        plan = shop.plan
        about = _about(shop)
        record = RunRecord(id=id, swarm=plan.name, plan_hash=plan.hash, started=time.time(), about=about)
        if plan.tenant is not None:
            await shop.store.tenant(plan.tenant, plan.tenant_limit)
        await shop.store.begin(record, plan.run_limit, plan.tenant)
        run = cls(shop, id, expected)
        await worker.take(shop.store.records, id, run.nonce)
        return await run._opened()

    @classmethod
    async def reopen(cls, shop: Shop, id: RunId) -> Run:
        """A run that was broken off; `go_on` finishes its tasks.

        Raises `StoreError` for a run that is not known, is worked on, or is of another plan or calibration.
        """
        record = await shop.store.run(id)
        if record is None:
            raise StoreError(f"run {id!r} is not in the store; `swarm runs` lists those that are")
        _check_same(shop, record)
        run = cls(shop, id)
        await worker.take(shop.store.records, id, run.nonce)
        try:
            await shop.store.reopen(id)
            await run._opened()
            run._known = await shop.store.results(id)
            run._open = await _unfinished(shop.store, record, {result.task for result in run._known})
            if run.setting.purse is not None:
                balance = await shop.store.balance(f"run:{id}")
                run.setting.purse.resume(balance.settled.micro_usd + balance.held.micro_usd, len(run._known))
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(run._let_go()))
            raise
        return run

    async def go_on(self) -> list[Result]:
        """The results of all tasks of a run that was reopened: those that were not finished, or cancelled, are gone on
        with.

        No step that was finished is asked or paid again; what was under way is charged as it would be after any crash,
        and asked again. A task's time begins anew.
        """
        known, open_ = self._known, self._open
        self._known, self._open = [], []
        gone_on = await asyncio.gather(*(self.answer(task, None, past) for task, past in open_), return_exceptions=True)
        return [*known, *map(_or_raised, gone_on)]

    async def _let_go(self) -> None:
        """Nobody works on it here any more."""
        await self._dispatcher.close()
        await worker.leave(self._store.records, self.id, self.nonce)

    async def _opened(self) -> Run:
        await self._dispatcher.open()
        return self

    def expect(self, tasks: int) -> None:
        """So many more tasks will come: a budget can be made to last them."""
        if (purse := self.setting.purse) is not None:
            purse.expected = (purse.expected or 0) + tasks

    async def answer(self, task: Task, publish: Publish | None, past: Past | None = None) -> Result:
        """The task's terminal state; what a person should see is written before this returns."""
        current = asyncio.current_task(self.setting.loop)
        assert current is not None
        self._tasks.add(current)
        try:
            async with self._room:
                left_ms, left_of = self._left()
                if left_ms is not None:
                    task = msgspec.structs.replace(task, left_ms=left_ms, left_of=left_of)
                result = await self._dispatcher.run(task, publish or _nobody, past)
            if result.status == "person" and self._person is not None:
                await asyncio.shield(asyncio.to_thread(self._person.hand_over, task.input, result))
            return result
        finally:
            self._tasks.discard(current)

    async def receipt(self) -> Receipt:
        return await receipt_of(self._store, self.id)

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
            await self._store.end(self.id, time.time())
            await worker.leave(self._store.records, self.id, self.nonce)
            self._finished = True

    def _left(self) -> tuple[int | None, Literal["task", "run"]]:
        """Milliseconds that a task which starts now may take, and whether its own limit says so or the run's."""
        now = time.monotonic()
        self._first = self._first if self._first is not None else now
        own, whole = self._plan.task_limit.ms, self._plan.run_limit.ms
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


async def _unfinished(store: Store, run: RunRecord, over: set[TaskId]) -> list[tuple[Task, Past]]:
    """The tasks that were accepted and have no result, with what the journal keeps of each, in order of acceptance."""
    attempts: dict[TaskId, list[Attempt]] = {}
    for attempt in await store.attempts(run.id):
        attempts.setdefault(attempt.task, []).append(attempt)
    missing = run.about.get("unavailable", {})
    return [
        (msgspec.msgpack.decode(body, type=Task), Past(attempts.get(id, []), missing))
        for id, body in await store.tasks(run.id)
        if id not in over and body
    ]


def _check_same(shop: Shop, record: RunRecord) -> None:
    """A task is only gone on with by the rules it was begun with."""
    subject = f"run {record.id!r}"
    if record.plan_hash != shop.plan.hash:
        raise StoreError(
            f"{subject} was made by plan {record.plan_hash[:12]}, and {shop.plan.name!r} is now {shop.plan.hash[:12]}; "
            "put the swarm file and its packs back as they were to go on with it, or run the items anew"
        )
    if record.about.get("learnt") != shop.learnt_sha256:
        raise StoreError(
            f"{subject} was decided by another calibration than {shop.plan.learnt or 'none'}; put that file back as it "
            "was to go on with it, or run the items anew"
        )
    mine = digest(shop.rules)
    if record.about.get("rules", mine) != mine:
        raise StoreError(
            f"{subject} was decided by other thresholds than this version of the program makes of its calibration; go "
            "on with it by the version it was begun with, or run the items anew"
        )


def _about(shop: Shop) -> dict[str, Any]:
    """What is kept of the run besides its attempts: for the receipt, and to go on with it."""
    plan = shop.plan
    compared = baseline_price(plan.compare_with, plan.models)
    about: dict[str, Any] = {"unavailable": dict(shop.unavailable), "on_exhausted": plan.on_exhausted, **shop.note}
    about["ladders"] = [[step.name, [tier.name for tier in step.ladder]] for step in plan.steps]
    about["file"], about["learnt"], about["rules"] = plan.path, shop.learnt_sha256, digest(shop.rules)
    if compared is not None:
        model, price = compared
        prices = {"input": price.input_per_mtok, "output": price.output_per_mtok}
        about["baseline"] = {"model": model, "source": price.source, **prices}
    return about


def _or_raised(result: Result | BaseException) -> Result:
    if isinstance(result, BaseException):
        raise result
    return result


def _nobody(_: object) -> None:
    """Nobody watches."""
