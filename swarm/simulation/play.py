"""Plays a scenario: life after life of a program, until all its tasks have ended; then looks at what is left."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import structlog

from protocols import ids
from protocols.answers import Ask
from protocols.control import ModelSpec
from protocols.money import Limit
from protocols.packs import Pack
from protocols.tasks import Result, Task
from swarm.config.references import Binding, Ref
from swarm.config.schema import Runtime
from swarm.errors import StoreError, SwarmError
from swarm.plan.plan import Plan, PlannedStep, Tier
from swarm.runtime import worker
from swarm.runtime.placement import place
from swarm.runtime.run import Run, Shop
from swarm.simulation.disk import Disk, Seen
from swarm.simulation.hosts import BadHosts, opener
from swarm.simulation.loop import Stuck, VirtualLoop
from swarm.simulation.scenario import Scenario

RUN = "r-0"
LONGEST_S = 3_600.0  # of virtual time; what has not ended by then never will
MOST_LIVES = 60


def play(scenario: Scenario) -> list[str]:
    """Everything that is wrong at the end or was at any moment; nothing, if all promises were kept."""
    with quiet():
        return played(scenario)


def played(scenario: Scenario) -> list[str]:
    """`play` for one who plays many: to be called within `quiet`."""
    rng = random.Random(scenario.seed)
    with _same_ids(rng) as clock:
        world = _World(scenario, rng, clock)
        try:
            world.run()
        except Stuck as e:
            world.disk.wrong.append(str(e))
        try:
            return world.disk.wrong + world.found()
        finally:
            world.close()


class _World:
    """What is there over all lives."""

    def __init__(self, scenario: Scenario, rng: random.Random, clock: SimpleNamespace) -> None:
        self.scenario = scenario
        self.rng = rng
        self.clock = clock
        self.disk = Disk(lambda: clock.now)
        self.plan = plan_of(scenario)
        self.told: dict[str, Result] = {}  # what callers were told
        self.calls: list[tuple[Any, str, str]] = []
        self.faults = sorted(scenario.faults, key=lambda fault: fault.at)
        self.begun = False
        self._buried: list[Any] = []  # what is left of dead programs, kept so that nothing in them runs any more
        self._loops: list[VirtualLoop] = []

    def run(self) -> None:
        for _ in range(MOST_LIVES):
            if self._live():
                return
        self.disk.wrong.append(f"not done after {MOST_LIVES} lives")

    def _live(self) -> bool:
        """One life of the program; whether it came to its own end."""
        self.disk.life += 1
        worker.forget_all()
        loop = VirtualLoop(self.clock.now)
        self.clock.loop = loop
        asyncio.set_event_loop(loop)
        main = loop.create_task(_Life(self).main())
        main.add_done_callback(lambda _: loop.stop())
        loop.call_at(max(LONGEST_S, loop.now), loop.stop)
        self._schedule(loop)
        loop.run_forever()
        self.clock.now = loop.now
        self._bury(loop)
        if loop.now >= LONGEST_S:
            self.disk.wrong.append(f"not done after {LONGEST_S:,.0f} s")
            return True
        if not main.done():
            self.clock.now += 1.0
            return False
        if (error := main.exception()) is not None and not isinstance(error, SwarmError):
            raise error
        if isinstance(error, StoreError):
            self.clock.now = max(self.clock.now + 1.0, self.disk.full_until)  # a person makes room and starts again
        return error is None

    def _bury(self, loop: VirtualLoop) -> None:
        """A dead program does nothing more, and nobody is told of what it leaves."""
        left = asyncio.all_tasks(loop)
        for task in left:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.set_exception_handler(lambda *_: None)
        self._buried += left
        self._loops.append(loop)

    def close(self) -> None:
        for loop in self._loops:
            loop.close()

    def _schedule(self, loop: VirtualLoop) -> None:
        """What is still to go wrong. What would have gone wrong while no program ran does so as the next one starts."""
        for fault in self.faults:
            if fault.trouble == "driver_dies":
                loop.call_at(max(fault.at, loop.now + 0.01), self._die, loop, fault)
            elif fault.trouble == "store_full":
                loop.call_at(fault.at, self._fill, fault)

    def _die(self, loop: VirtualLoop, fault: Any) -> None:
        self.faults.remove(fault)
        loop.stop()

    def _fill(self, fault: Any) -> None:
        self.disk.full_until = max(self.disk.full_until, fault.at + fault.lasts)

    def called(self, ask: Ask) -> None:
        self.calls.append((ask.input.get("text"), ask.step, ask.tier))

    # --- the oracle

    def found(self) -> list[str]:
        """What is wrong now that everything has ended."""
        loop = VirtualLoop(max(self.clock.now, self.disk.full_until) + 1)
        self.clock.loop = loop
        self._loops.append(loop)
        return loop.run_until_complete(self._looked_at())

    async def _looked_at(self) -> list[str]:
        store, wrong = self.disk.store, []
        await store.check()
        accepted = [id for id, _ in await store.tasks(RUN)] if self.begun else []
        results = Counter(r.task for r in await store.results(RUN)) if self.begun else Counter()
        wrong += [f"{id} has {results[id]} terminal states" for id in accepted if results[id] != 1]
        wrong += [f"{id} ended without having been accepted" for id in results if id not in accepted]
        attempts = await store.attempts(RUN) if self.begun else []
        over = Counter((a.task, a.step) for a in attempts if a.outcome in ("accepted", "degraded"))
        wrong += [f"{task} {step} was finished {n} times" for (task, step), n in over.items() if n > 1]
        wrong += _asked_again(attempts)
        kept = {r.task: r for r in await store.results(RUN)} if self.begun else {}
        wrong += [f"{id}: its caller was told something else" for id, told in self.told.items() if kept.get(id) != told]
        if self.begun:
            held = (await store.balance(f"run:{RUN}")).held
            wrong += [f"{held} is still held"] if any((held.micro_usd, held.tokens, held.ms)) else []
        return wrong


class _Life:
    """What a program does between its start and its end."""

    def __init__(self, world: _World) -> None:
        self._world = world

    async def main(self) -> None:
        world, scenario = self._world, self._world.scenario
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as owned:
            store: Any = Seen(world.disk, world.rng)
            specs = place(world.plan, frozenset(), together=False)
            hosts = BadHosts(specs, opener(scenario.seed, world.rng, world.called), world.rng)
            bus = await hosts.start(owned)
            for fault in list(world.faults):
                if fault.trouble.startswith("host"):
                    loop.call_at(max(fault.at, loop.time() + 0.01), _befall, world, hosts, fault)
            shop = Shop(world.plan, store, hosts, bus, {}, {}, clock=loop.time)
            run, done = await self._run(shop)
            world.told |= {r.task: r for r in done}
            missing = range(len(done), scenario.tasks)
            answers = await asyncio.gather(*(self._answer(run, i) for i in missing), return_exceptions=True)
            await run.finish()
            if errors := [a for a in answers if isinstance(a, BaseException)]:
                raise errors[0]

    async def _run(self, shop: Shop) -> tuple[Run, list[Result]]:
        if await shop.store.run(RUN) is None:
            run = await Run.begin(shop, RUN)
            self._world.begun = True
            return run, []
        self._world.begun = True
        run = await Run.reopen(shop, RUN)
        return run, await run.go_on()

    async def _answer(self, run: Run, i: int) -> None:
        task = Task(id=ids.new_id("t"), run=RUN, input={"text": f"item {i}"})
        self._world.told[task.id] = await run.answer(task, None)


def _befall(world: _World, hosts: BadHosts, fault: Any) -> None:
    if fault not in world.faults or not hosts.links:
        return
    world.faults.remove(fault)
    if fault.trouble == "host_dies":
        hosts.nth(fault.host).kill()
    else:
        hosts.nth(fault.host).hang(fault.lasts)


def _asked_again(attempts: list[Any]) -> Iterator[str]:
    """A step that was over has no later attempt."""
    ends = {(a.task, a.step): a.place for a in attempts if a.outcome in ("accepted", "degraded")}
    for a in attempts:
        if a.place > ends.get((a.task, a.step), a.place) and a.outcome not in ("cancelled", "unavailable"):
            yield f"{a.task} {a.step} was asked again after it was over"


def plan_of(scenario: Scenario) -> Plan:
    """A chain or a row of steps, each with a free tier below a paid one."""
    remote = ModelSpec(tier="remote", kind="remote", name="gpt", input_micro_usd_per_mtok=100_000,
                       output_micro_usd_per_mtok=100_000)  # fmt: skip
    small = ModelSpec(tier="small", kind="small", name="lm")
    ladder = (Tier("small", "small", small), Tier("remote", "remote", remote))
    steps = []
    for i in range(scenario.steps):
        before = f"s{i - 1}" if scenario.chained and i else None
        inputs: dict[str, Binding] = {"text": Ref("input", ("text",))}
        if before is not None:
            inputs["before"] = Ref(before, ("label",))
        pack = Pack(name=f"s{i}", kind="generate", output_schema={"type": "object"}, max_tokens=32)
        steps.append(PlannedStep(name=f"s{i}", specialist=f"s{i}", pack=pack, ladder=ladder, inputs=inputs,
                                 needs=frozenset([before] if before else []), accept_at=0.8))  # fmt: skip
    return Plan(
        name="simulated", description="", steps=tuple(steps), task_limit=Limit(),
        run_limit=Limit(tokens=scenario.run_tokens, micro_usd=scenario.run_micro_usd), on_exhausted="degrade",
        compare_with=None, models={"small": small, "remote": remote},
        runtime=Runtime(hosts=scenario.hosts, max_in_flight=scenario.in_flight), hash="simulated",
    )  # fmt: skip


@contextmanager
def _same_ids(rng: random.Random) -> Iterator[SimpleNamespace]:
    """Ids by the seed and the virtual clock, so that a scenario plays the same way every time."""
    clock = SimpleNamespace(now=0.0, loop=None)

    def time_ns() -> int:
        return int((clock.loop.now if clock.loop is not None else clock.now) * 1e9)

    own = random.Random(rng.random())
    with (
        patch.object(ids, "time", SimpleNamespace(time_ns=time_ns)),
        patch.object(ids, "_chance", own),
    ):
        try:
            yield clock
        finally:
            clock.loop = None


@contextmanager
def quiet() -> Iterator[None]:
    """Programs that die in the middle leave coroutines behind, of which Python would complain.

    Leaving it takes a while: they are looked for then.
    """
    hook, config = sys.unraisablehook, structlog.get_config()
    sys.unraisablehook = lambda _: None
    warned = warnings.catch_warnings()
    warned.__enter__()
    warnings.simplefilter("ignore", RuntimeWarning)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**config)
        asyncio.set_event_loop(None)
        gc.collect()  # the dead programs' coroutines are closed while nobody listens
        warned.__exit__(None, None, None)
        sys.unraisablehook = hook
