"""One task from acceptance to its terminal state: carries out what `policy.decide` says.

Order of one attempt: hold → ask → answer → confidence → decide → settle and journal → act. Nothing counts before it is
in the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar, assert_never

import msgspec
import structlog

from protocols import events
from protocols.ids import new_id
from protocols.money import Amount
from protocols.tasks import Result, StepResult, Task, Why
from swarm.dispatch import moves, policy
from swarm.dispatch.attempts import Attempts, Made
from swarm.dispatch.holds import Holds
from swarm.dispatch.setting import Publish, Setting
from swarm.dispatch.usable import unusable
from swarm.dispatch.why import explained, outcome
from swarm.errors import StoreError
from swarm.plan.plan import resolve
from swarm.state.base import Attempt

log = structlog.get_logger(__name__)
T = TypeVar("T")

PAUSE_S = 0.1  # before a task's end is written again


@dataclass(frozen=True, slots=True)
class _Entry:
    """An attempt that is over, on its way into the store."""

    attempt: Attempt
    used: Amount
    void: bool


class Course:
    """Runs once."""

    def __init__(self, setting: Setting, holds: Holds, task: Task, publish: Publish) -> None:
        self._s = setting
        self._holds = holds
        self._task = task
        self._publish = publish
        self._state = policy.TaskState(setting.plan, setting.unavailable)
        self._happened: asyncio.Queue[Made] = asyncio.Queue()
        self._attempts = Attempts(setting, holds, task, self._tell, self._happened.put_nowait)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._unwritten: list[_Entry] = []
        self._cost = Amount()
        self._why: list[Why] = []
        self._accepted = False
        self._started = setting.clock()
        self._log = log.bind(task_id=task.id)

    async def run(self) -> Result:
        """The task's one terminal state. Cancelling ends it as `cancelled`, its holds ended, unless it is over by then.

        Raises `StoreError` where the task cannot be accepted, or its end cannot be written.
        """
        finish = moves.Finish("cancelled", "the caller cancelled it")
        try:
            finish = await self._live()
        except asyncio.CancelledError:
            await _whole(self._end(finish))
            raise
        except Exception as e:  # the store failed, or the fault is ours: nothing goes on unseen
            if not self._accepted:
                raise
            cause = f"{type(e).__name__}: {e}"[:500]
            self._log.warning("task.broken", cause=cause, exc_info=not isinstance(e, StoreError))
            finish = moves.Finish("failed", cause)
        ending = asyncio.ensure_future(self._end(finish))
        try:
            return await asyncio.shield(ending)
        except asyncio.CancelledError:  # too late: the task is over, and its caller gets what became of it
            return await asyncio.shield(ending)

    async def _live(self) -> moves.Finish:
        try:
            async with asyncio.timeout(None if self._task.left_ms is None else self._task.left_ms / 1000):
                await self._s.store.accept(self._s.run, self._task.id, self._s.plan.task_limit)
                self._accepted = True
                self._tell(events.TaskAccepted(task=self._task.id))
                problem = unusable(self._s.plan, self._task.input)
                await _whole(self._decide(moves.Begin() if problem is None else moves.Unusable(problem)))
                while self._state.finished is None:
                    happened = [await self._happened.get()]
                    await _whole(self._step(happened))
        except TimeoutError:
            await _whole(self._decide(moves.TimeUp(self._task.left_of)))
        assert self._state.finished is not None
        return self._state.finished

    # --- what happens

    async def _decide(self, event: moves.Begin | moves.Unusable | moves.TimeUp) -> None:
        """Decide on what no attempt brought about, and act."""
        decided = policy.decide(event, self._state)
        self._why += explained(self._s.plan, decided)
        await self._act(decided)

    async def _step(self, happened: list[Made]) -> None:
        """Decide on everything that has happened by now; journal it; act."""
        while not self._happened.empty():
            happened.append(self._happened.get_nowait())
        outcomes, decisions = [], []
        for made in happened:
            decided = policy.decide(made.event, self._state) if made.event is not None else []
            self._why += explained(self._s.plan, decided, made)
            outcomes.append(outcome(made, decided))
            decisions += decided
        await self._journal(happened, outcomes)
        await self._act(decisions)

    async def _journal(self, happened: Sequence[Made], outcomes: Sequence[str]) -> None:
        for made, became in zip(happened, outcomes, strict=True):
            self._cost += made.used
            attempt = msgspec.structs.replace(made.attempt, outcome=became, micro_usd=made.used.micro_usd)
            self._unwritten.append(_Entry(attempt, made.used, void=made.event is None and made.used == Amount()))
        ended = await asyncio.gather(*map(self._write, self._unwritten), return_exceptions=True)
        if errors := [error for error in ended if error is not None]:
            raise errors[0]
        self._unwritten.clear()
        self._holds.ended()

    async def _write(self, entry: _Entry) -> None:
        """May be done again after a failure: an attempt ends once."""
        if entry.void:
            await self._s.store.void(entry.attempt, self._s.run)
        else:
            await self._s.store.settle(entry.attempt, self._s.run, entry.used)

    # --- acting on decisions

    async def _act(self, decisions: list[moves.Decision]) -> None:
        for decision in decisions:
            match decision:
                case moves.Try():
                    self._begin(decision)
                case moves.Escalate():
                    self._escalated(decision)
                case moves.Missed():
                    await self._miss(decision)
                case moves.EndStep():
                    self._end_step(decision)
                case moves.Drop():
                    if attempt := self._running.get(decision.step):
                        attempt.cancel()
                case moves.Finish():
                    self._log.debug("task.decided", status=decision.status)
                case _:
                    assert_never(decision)

    def _begin(self, decision: moves.Try) -> None:
        given = resolve(self._s.plan.step(decision.step), self._task.input, self._state.outputs())
        self._running[decision.step] = asyncio.create_task(self._attempts.make(decision, given))

    def _escalated(self, up: moves.Escalate) -> None:
        self._tell(events.StepEscalated(task=self._task.id, step=up.step, from_tier=up.tier, to_tier=up.to,
                   reason=up.reason, confidence=up.confidence))  # fmt: skip
        self._log.debug("step.escalated", step=up.step, from_tier=up.tier, to_tier=up.to)

    def _end_step(self, end: moves.EndStep) -> None:
        if end.status == "accepted":
            assert end.tier is not None and end.confidence is not None and end.output is not None
            self._tell(events.StepAccepted(task=self._task.id, step=end.step, tier=end.tier,
                       confidence=end.confidence, output=end.output))  # fmt: skip
        else:
            self._tell(events.StepEnded(task=self._task.id, step=end.step, status=end.status, reason=end.reason))

    async def _miss(self, missed: moves.Missed) -> None:
        """Journal what a tier that cannot be asked would have got."""
        step = self._s.plan.step(missed.step)
        given = resolve(step, self._task.input, self._state.outputs())
        tokens_in, tokens_out = self._s.estimator.remote_tokens(step, given, {})
        attempt = Attempt(
            id=new_id("a"), task=self._task.id, step=missed.step, tier=missed.tier.name, outcome="unavailable",
            reason=missed.reason, remote_tokens_in=tokens_in, remote_tokens_out=tokens_out,
        )  # fmt: skip
        await self._s.store.void(attempt, self._s.run)

    def _tell(self, event: events.Event) -> None:
        """Whoever watches cannot harm what is watched."""
        try:
            self._publish(event)
        except Exception as e:
            self._log.warning("event.not_delivered", kind=type(event).__name__, cause=f"{type(e).__name__}: {e}")

    # --- the end

    async def _end(self, finish: moves.Finish) -> Result:
        """End what is open and write the terminal state; a store that fails gets a second chance, after a pause."""
        await self._stop_attempts()
        try:
            return await self._closed(finish)
        except Exception as e:
            self._log.warning("task.not_written", cause=f"{type(e).__name__}: {e}")
        await asyncio.sleep(PAUSE_S)
        try:
            return await self._closed(finish)
        except Exception as e:
            self._holds.broken(f"the end of task {self._task.id!r} cannot be written, no more holds are given: {e}")
            raise

    async def _closed(self, finish: moves.Finish) -> Result:
        late = [self._happened.get_nowait() for _ in range(self._happened.qsize())]
        await self._journal(late, [outcome(made, []) for made in late])
        result = self._result(finish)
        await self._s.store.finish(self._s.run, result)
        self._tell(events.TaskFinished(task=self._task.id, result=result))
        self._log.info("task.finished", status=result.status, ms=result.ms, micro_usd=result.cost.micro_usd)
        return result

    async def _stop_attempts(self) -> None:
        for attempt in self._running.values():
            attempt.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _result(self, finish: moves.Finish) -> Result:
        ends = {name: step.end for name, step in self._state.steps.items() if step.end is not None}
        steps = {
            name: StepResult(step=name, status=end.status, output=end.output, tier=end.tier,
                             confidence=end.confidence, reason=end.reason or None)
            for name, end in ends.items()
        }  # fmt: skip
        sure = [end.confidence for end in ends.values() if end.confidence is not None]
        return Result(
            task=self._task.id,
            status=finish.status,
            output=dict(self._state.outputs()),
            steps=steps,
            confidence=min(sure, default=None),
            cost=self._cost,
            why=tuple(self._why),
            reason=finish.reason or None,
            ms=int((self._s.clock() - self._started) * 1000),
        )


async def _whole(work: Coroutine[Any, Any, T]) -> T:
    """Do all of `work`, though the caller may go away meanwhile; he goes when it is done."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):  # told more than once
                await asyncio.wait({task})
        raise
