"""Answers that need no attempt: the same input again, the same input at the same time, nearly the same input."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import structlog

from protocols.answers import Answer, Ask, Failed
from protocols.ids import TaskId
from protocols.money import Amount
from swarm.dispatch.cache import flight
from swarm.dispatch.cache.kept import Answers, Kept
from swarm.dispatch.cache.key import identities, key
from swarm.dispatch.cache.said import Said
from swarm.dispatch.cache.scope import scope
from swarm.dispatch.cache.similar import Look, Near, Similar
from swarm.dispatch.cache.statistics import NOTHING, CacheStatistics
from swarm.dispatch.explore import uniform
from swarm.dispatch.setting import Setting
from swarm.engine.base import Embedder
from swarm.errors import EngineError, StoreError
from swarm.plan.plan import PlannedStep
from swarm.state.records import Records

log = structlog.get_logger(__name__)

COINS = 1  # the seed of the coins, other than that of what is shadowed

How = Literal["exact", "together", "near"]


@dataclass(frozen=True, slots=True)
class Recalled:
    """An answer from the cache. `reason` says where it comes from, `rule` what is promised of it.

    `saved`: what the attempts cost that brought it, then. `similarity`: cosine to the input it was given to.
    """

    how: How
    answer: Kept
    confidence: float
    reason: str
    rule: str = ""
    similarity: float | None = None

    @property
    def saved(self) -> Amount:
        return self.answer.cost


@dataclass(slots=True)
class _Led:
    """A step of a task that is being computed."""

    step: PlannedStep
    key: str
    alone: bool  # nobody waits for it
    look: Look | None = None


class Recall:
    """One run's. Opened with `open`; a cache that fails costs its answers, never a task.

    models: tier -> sha256 of the weights. embedder: for steps whose cache is semantic; without one they are exact.
    now: the time of day in seconds.
    """

    def __init__(
        self, setting: Setting, records: Records, models: Mapping[str, str], embedder: Embedder | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        plan = setting.plan
        self._scope = scope(plan.tenant, plan.name)
        self._answers = Answers(records, self._scope, now)
        self._said = Said(records, self._scope, now)
        self._flights: flight.Flights[Kept] = flight.Flights()
        self._led: dict[tuple[TaskId, str], _Led] = {}
        self._identities = identities(plan, models, setting.rules, setting.calibrations)
        self._similar = {
            step.name: Similar(step, self._identities[step.name], records, self._scope, embedder, now)
            for step in plan.steps
            if step.cache.kind == "semantic" and embedder is not None
        }
        self._counts = {name: CacheStatistics() for name in self._identities}

    async def open(self) -> None:
        """Take up what earlier runs have kept. A semantic cache that cannot be read is not used."""
        for name, similar in list(self._similar.items()):
            try:
                await similar.open()
            except StoreError as e:
                self._broken(name, e)

    async def ask(self, step: PlannedStep, given: Mapping[str, Any], task: TaskId) -> Recalled | None:
        """What is known already; None: compute it, then say `accepted` or `not_kept`, or `over` of the whole task."""
        if step.name not in self._identities:
            return None
        self._count(step.name, asked=1)
        name = key(self._identities[step.name], given)
        if (followed := await self._together(step, name, task)) is not None:
            return followed
        led = self._led.get((task, step.name))
        if led is None or led.alone:
            return None
        try:
            found = await self._found(led, given, task)
        except (StoreError, EngineError) as e:
            log.warning("cache.not_read", step=step.name, cause=str(e))
            found = None
        except BaseException:
            self.not_kept(task, step.name, gone=True)
            raise
        if found is not None:
            self._count(step.name, found.saved, **{found.how: 1})
            if found.how == "near":  # what is promised counts each request: those who wait ask for themselves
                self.not_kept(task, step.name, gone=True)
            else:
                self._land(task, step.name, found.answer)
        return found

    async def accepted(self, task: TaskId, step: str, answer: Kept) -> None:
        """The step of this task was computed and accepted: keep it, and tell those who wait for it."""
        led = self._led.get((task, step))
        if led is None:
            return
        try:
            await self._answers.keep(step, led.key, answer, led.step.cache.ttl_s)
            if led.look is not None and step in self._similar:
                self._seen(step, led.look, await self._similar[step].keep(led.look, answer))
        except StoreError as e:
            log.warning("cache.not_kept", step=step, cause=str(e))
        finally:  # only now: whoever asks next finds it kept
            self._land(task, step, answer)

    async def said(self, step: PlannedStep, ask: Ask) -> Answer | Failed | None:
        """What was said to the same ask before, in a step that was not accepted; None: ask."""
        if step.name not in self._identities:
            return None
        try:
            return await self._said.find(ask, self._identities[step.name])
        except StoreError as e:
            log.warning("cache.not_read", step=step.name, cause=str(e))
            return None

    async def heard(self, step: PlannedStep, ask: Ask, reply: Answer | Failed) -> None:
        """Remember what was said, should its step not be accepted."""
        if step.name not in self._identities:
            return
        try:
            await self._said.keep(ask, self._identities[step.name], reply, step.cache.ttl_s)
        except StoreError as e:
            log.warning("cache.not_kept", step=step.name, cause=str(e))

    def not_kept(self, task: TaskId, step: str, *, gone: bool = False) -> None:
        """The step found nothing that another task may have. `gone`: it was not tried to its end; another may."""
        led = self._led.pop((task, step), None)
        if led is None or led.alone:
            return
        if gone:
            self._flights.leave((step, led.key))
        else:
            self._flights.fail((step, led.key))

    def over(self, task: TaskId) -> None:
        """The task is over, however it ended: nobody waits for it any more."""
        for of, step in [known for known in self._led if known[0] == task]:
            self.not_kept(of, step, gone=True)

    def statistics(self) -> dict[str, CacheStatistics]:
        """By step, those that have a cache."""
        return {name: self._told(name, counts) for name, counts in self._counts.items()}

    async def close(self) -> None:
        """Leave what was learnt to the next run. May be called twice."""
        for name, similar in list(self._similar.items()):
            try:
                await similar.close()
            except StoreError as e:
                self._broken(name, e)

    # --- how it is found

    async def _together(self, step: PlannedStep, name: str, task: TaskId) -> Recalled | None:
        """Wait for another task that has the same question now; else this one leads, or goes on alone."""
        place = (step.name, name)
        while not self._flights.lead(place):
            try:
                kept = await self._flights.follow(place)
            except flight.HandedOver:
                continue
            except flight.Failed:
                self._led[task, step.name] = _Led(step, name, alone=True)
                return None
            self._count(step.name, kept.cost, together=1)
            return Recalled("together", kept, kept.confidence, f"task {kept.task} asked the same at the same time")
        self._led[task, step.name] = _Led(step, name, alone=False)
        return None

    async def _found(self, led: _Led, given: Mapping[str, Any], task: TaskId) -> Recalled | None:
        kept = await self._answers.find(led.step.name, led.key)
        if kept is not None:
            return Recalled("exact", kept, kept.confidence, f"the same input was answered in {_origin(kept)}")
        similar = self._similar.get(led.step.name)
        if similar is None:
            return None
        found = await similar.ask(given, uniform(task, led.step.name, COINS))
        if not isinstance(found, Near):
            led.look = found
            return None
        said = f"an input like it (similarity {found.similarity:.3f}) was answered in {_origin(found.answer)}"
        sure = found.answer.confidence * (1.0 - found.risk)
        return Recalled("near", found.answer, sure, said, self._promise(led.step), found.similarity)

    def _promise(self, step: PlannedStep) -> str:
        gate = self._similar[step.name].gate
        return (
            f"at most {step.cache.error:.3g} of the requests answered wrongly by reuse, with probability "
            f"{step.cache.level:.3g}: at most {gate.audit.bound():,} of {gate.requests:,} so far"
        )

    def _land(self, task: TaskId, step: str, answer: Kept) -> None:
        led = self._led.pop((task, step))
        if not led.alone:
            self._flights.land((step, led.key), answer)

    def _seen(self, step: str, look: Look, wrong: bool | None) -> None:
        """What a look has shown; where a reuse was not possible anyhow, it was none."""
        if wrong is not None and look.chance < 1.0:
            self._count(step, looked=1, wrong=int(wrong))
            log.info("cache.looked", step=step, chance=look.chance, wrong=wrong)

    def _count(self, step: str, saved: Amount = NOTHING, /, **more: int) -> None:
        self._counts[step] = self._counts[step].plus(saved, **more)

    def _told(self, name: str, counts: CacheStatistics) -> CacheStatistics:
        similar = self._similar.get(name)
        if similar is None:
            return counts
        return replace(counts, requests=similar.gate.requests, bound=similar.gate.audit.bound())

    def _broken(self, step: str, error: StoreError) -> None:
        log.warning("cache.not_used", step=step, cause=str(error), remedy="`swarm cache clear` begins it anew")
        self._similar.pop(step, None)


def _origin(kept: Kept) -> str:
    return f"run {kept.run}, task {kept.task}"
