"""A launched swarm on its own event loop: hosts, bus and store put together, and taken apart."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import structlog

from protocols.answers import Ask
from protocols.control import Health, Ready
from protocols.ids import HostId, RunId, new_id
from protocols.tasks import Result, Task
from swarm.bus.bus import BusStatistics
from swarm.dispatch.dispatcher import Publish
from swarm.dispatch.learnt import Learnt, load
from swarm.dispatch.rules import rules, stale
from swarm.engine import remote
from swarm.engine.base import Embedder
from swarm.errors import CalibrationError, StoreError, SwarmError
from swarm.models.store import default_home
from swarm.observe.receipt import Receipt
from swarm.plan.plan import Plan
from swarm.runtime.base import Runtime
from swarm.runtime.hosts import Hosts
from swarm.runtime.in_process import InProcessRuntime
from swarm.runtime.letters import Letters
from swarm.runtime.placement import place, room
from swarm.runtime.retry import retried
from swarm.runtime.run import Run, Shop
from swarm.runtime.workshop import open_embedder
from swarm.state.store import open_store

log = structlog.get_logger(__name__)


class Session:
    """Made by `open`. Works on one run at a time; `run` is its id, and it is begun with its first task."""

    def __init__(self, shop: Shop, owned: AsyncExitStack, letters: Letters) -> None:
        self.plan = shop.plan
        self.run: RunId = letters.run
        self._letters = letters
        self._shop = shop
        self._owned = owned
        self._current: Run | None = None
        self._beginning: asyncio.Future[Run] | None = None
        self._expected: int | None = None
        self._retries: set[asyncio.Future[Result]] = set()

    @classmethod
    async def open(
        cls,
        plan: Plan,
        runtime: Runtime,
        *,
        together: bool,
        local: Runtime | None = None,
        unavailable: Mapping[str, str] | None = None,
        note: Mapping[str, Any] | None = None,
    ) -> Session:
        """Open the store and start the hosts. What was started is ended again when a part fails.

        `local` starts the host in this process. `unavailable`: tier -> why it cannot be asked; default: remote tiers
        without a key or a price. `note`: kept with the run.
        """
        async with AsyncExitStack() as owned:
            store = await open_store(plan.runtime.store or default_home() / "store.db")
            owned.push_async_callback(store.close)
            owned.push_async_callback(runtime.close)
            missing = dict(unavailable) if unavailable is not None else _unreachable(plan)
            letters = Letters(store.records, new_id("r"))
            owned.push_async_callback(letters.close)
            placed = place(plan, frozenset(missing), together=together)
            hosts = Hosts(placed, runtime, local or InProcessRuntime(), room=room(plan), keep=letters.keep)
            bus = await hosts.start(owned)
            learnt = _learnt(plan, hosts.models())
            digest = _sha256(plan.learnt) if learnt is not None else None
            embedder = await _embedder(plan)
            if embedder is not None:
                owned.callback(embedder.close)
            shop = Shop(plan, store, hosts, bus, rules(plan, learnt, hosts.models()), missing, digest, note or {},
                        embedder=embedder)  # fmt: skip
            return cls(shop, owned.pop_all(), letters)

    async def current(self) -> Run:
        """The run that is worked on. Raises `StoreError` when it cannot be begun."""
        if self._current is not None:
            return self._current
        if self._beginning is None:
            self._beginning = asyncio.ensure_future(self._begun())
        return await asyncio.shield(self._beginning)  # whoever waits for it may go away

    async def _begun(self) -> Run:
        """Begin a run. One that cannot be begun is ended, and the next caller begins another."""
        try:
            self._current = await Run.begin(self._shop, self.run, self._expected)
            return self._current
        except BaseException:
            failed, self.run = self.run, new_id("r")
            self._letters.run, self._beginning = self.run, None
            with suppress(SwarmError):
                await self._shop.store.end(failed, time.time())
            raise

    def expect(self, tasks: int) -> None:
        """So many more tasks will come: a budget can be made to last them."""
        if self._current is not None:
            self._current.expect(tasks)
        else:
            self._expected = (self._expected or 0) + tasks

    async def answer(self, task: Task, publish: Publish | None) -> Result:
        """The task's terminal state; what a person should see is written before this returns."""
        return await (await self.current()).answer(task, publish)

    async def resume(self, run: RunId) -> list[Result]:
        """Go on with a run that was broken off, and work on that one from now on. See `Run.reopen`."""
        if self._beginning is not None:
            raise StoreError(
                f"run {self.run!r} has begun here; resume {run!r} in a swarm that has not been asked anything yet"
            )
        self._beginning = asyncio.ensure_future(self._reopened(run))
        return await (await asyncio.shield(self._beginning)).go_on()

    async def _reopened(self, run: RunId) -> Run:
        try:
            self._current = await Run.reopen(self._shop, run)
        except BaseException:
            self._beginning = None
            raise
        self.run = self._letters.run = run
        if self._expected:
            self._current.expect(self._expected)
        return self._current

    async def retry(self, ask: Ask) -> Result:
        """Ask once more what was given up on, as a run of its own. Raises `SwarmError` where it cannot be asked."""
        retry = asyncio.ensure_future(retried(self._shop, ask))
        self._retries.add(retry)
        retry.add_done_callback(self._retries.discard)
        return await retry

    async def receipt(self) -> Receipt:
        return await (await self.current()).receipt()

    def hosts(self) -> dict[HostId, Ready]:
        """Each host as it last reported itself."""
        return dict(self._shop.hosts.ready)

    async def health(self) -> list[Health]:
        return await self._shop.bus.health()

    async def statistics(self) -> BusStatistics:
        return self._shop.bus.statistics()

    async def stop_tasks(self) -> None:
        if self._current is not None:
            await self._current.stop_tasks()

    async def finish(self) -> None:
        """End the run: nothing of it runs any more, and its receipt is final. May be called twice."""
        await (await self.current()).finish()

    async def close(self) -> None:
        try:
            if self._beginning is not None:
                await asyncio.gather(self._beginning, return_exceptions=True)
            await asyncio.gather(*self._retries, return_exceptions=True)
            if self._current is not None:
                await self._current.finish()
        finally:
            await self._owned.aclose()


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


async def _embedder(plan: Plan) -> Embedder | None:
    """For steps that answer from what they were asked before, as far as this machine has one."""
    head = next((model for model in plan.models.values() if model.kind == "head" and model.recording is None), None)
    if head is None or all(step.cache.kind != "semantic" for step in plan.steps):
        return None
    return await asyncio.to_thread(open_embedder, head.name, plan.registry)


def _sha256(path: str | None) -> str | None:
    return None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _unreachable(plan: Plan) -> dict[str, str]:
    models = (model for model in plan.models.values() if model.kind == "remote")
    return {model.tier: why for model in models if (why := remote.unavailable(model)) is not None}
