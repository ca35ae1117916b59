"""One task from acceptance to its terminal state: carries out what `policy.decide` says.

Order of one attempt: hold → ask → answer → confidence → decide → settle and journal → act. Nothing counts before it is
in the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar, assert_never

import msgspec

from protocols import events
from protocols.answers import Earlier
from protocols.ids import new_id
from protocols.money import Limit
from protocols.tasks import Result, StepResult, Task, Why
from swarm.dispatch import moves, policy
from swarm.dispatch.again import Past, retrace
from swarm.dispatch.attempts import Attempts, Made
from swarm.dispatch.extras import TaskExtras
from swarm.dispatch.holds import Holds
from swarm.dispatch.journal import Journal, encode
from swarm.dispatch.judge import value_of
from swarm.dispatch.setting import Publish, Setting
from swarm.dispatch.usable import unusable
from swarm.dispatch.watch import Watch
from swarm.dispatch.ways import asked_as, rung_of
from swarm.dispatch.why import explained, outcome
from swarm.errors import StoreError
from swarm.observe.secrets import cleaned
from swarm.plan.plan import memory_key, resolve
from swarm.state.base import Attempt

T = TypeVar("T")

PAUSE_S = 0.1  # before a task's end is written again


class Course:
    """Runs once. `past`: of a task that was accepted before, and is gone on with."""

    def __init__(
        self, setting: Setting, holds: Holds, watch: Watch, task: Task, publish: Publish, log: Any,
        past: Past | None = None,
    ) -> None:  # fmt: skip
        self._s = setting
        self._holds = holds
        self._task = task
        self._publish = publish
        self._log = log
        self._past = past
        self._state = policy.TaskState(setting.plan, setting.unavailable, setting.rules)
        self._watch = watch
        self._journal = Journal(setting.store, setting.run, holds)
        self._extras = TaskExtras(setting.extras, setting.run, task.id)
        self._attempts = Attempts(setting, holds, task, self._tell, self._report, watch.alarmed, self._extras)
        self._begun: list[tuple[moves.Try, dict[str, Any], str | None]] = []  # to be made, with inputs and memory's key
        self._running: dict[str, asyncio.Task[None]] = {}
        self._happened: deque[Made] = deque()
        self._waiting: asyncio.Future[None] | None = None  # for something to happen
        self._decided: list[moves.Decision] = []  # to be acted on when the journal is written
        self._why: list[Why] = []
        self._accepted = past is not None
        self._result: Result | None = None
        self._started = setting.clock()

    async def run(self) -> Result:
        """The task's one terminal state. Cancelling ends it as `cancelled`, its holds ended, unless it is over by then.

        Raises `StoreError` where the task cannot be accepted, or its end cannot be written.
        """
        try:
            return await self._run()
        finally:
            self._extras.over()

    async def _run(self) -> Result:
        finish = moves.Finish("cancelled", "the caller cancelled it")
        try:
            finish = await self._live()
        except asyncio.CancelledError:
            await _whole(self._end(finish))
            raise
        except Exception as e:  # the store failed, or the fault is ours: nothing goes on unseen
            if not self._accepted:
                raise
            cause = cleaned(f"{type(e).__name__}: {e}")[:500]
            self._log.warning("task.broken", task_id=self._task.id, cause=cause, exc_info=not isinstance(e, StoreError))
            finish = moves.Finish("failed", cause)
        try:
            return await self._end(finish)
        except asyncio.CancelledError:  # too late: the task is over, and its caller gets what became of it
            return await asyncio.shield(asyncio.ensure_future(self._end(finish)))

    async def _live(self) -> moves.Finish:
        if self._task.left_ms is None:
            await self._until_finished()
        else:
            try:
                async with asyncio.timeout(self._task.left_ms / 1000):
                    await self._until_finished()
            except TimeoutError:
                await self._decide(moves.TimeUp(self._task.left_of))
        if (current := asyncio.current_task(self._s.loop)) is not None and current.cancelling():
            raise asyncio.CancelledError  # it came while nothing was waited for
        assert self._state.finished is not None
        return self._state.finished

    async def _until_finished(self) -> None:
        self._attempts.started = self._s.clock()  # not before the deadline's own clock: a host must not be ahead of it
        if self._past is None:
            await self._accept()
        if self._past is not None and self._past.attempts:
            await self._go_on(self._past)
        else:
            problem = unusable(self._s.plan, self._task.input)
            await self._decide(moves.Begin() if problem is None else moves.Unusable(problem))
        while self._state.finished is None:
            await self._make_attempts()
            await self._step()

    async def _accept(self) -> None:
        plan = self._s.plan
        steps = (
            None if plan.step_limit == Limit() else dict.fromkeys((step.name for step in plan.steps), plan.step_limit)
        )
        await self._s.store.accept(self._s.run, self._task.id, plan.task_limit, steps, body=_kept(self._task))
        self._accepted = True
        self._tell(events.TaskAccepted(task=self._task.id))

    async def _go_on(self, past: Past) -> None:
        """Take the task up where the journal leaves it."""
        known = retrace(self._s.plan, past, self._s.rules)
        known.state.unavailable = self._s.unavailable
        self._state, self._why = known.state, known.why
        self._journal.cost, self._journal.place = known.cost, known.place
        self._attempts.spent = known.cost.micro_usd
        self._decided = list(known.begin)
        await self._carry_out()

    # --- what happens

    async def _make_attempts(self) -> None:
        """Make the attempts that were begun, until one of all that run is over.

        One that runs alone, as in a chain of steps, is made right here: a task of its own would cost as much again.
        """
        begun, self._begun = self._begun, []
        if len(begun) == 1 and not self._running:
            await self._attempts.make(*begun[0])
        else:
            for decision, given, key in begun:
                self._running[decision.step] = asyncio.create_task(self._attempts.make(decision, given, key))
        while not self._happened:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting

    def _report(self, made: Made) -> None:
        self._happened.append(made)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def _decide(self, event: moves.Begin | moves.Unusable | moves.TimeUp) -> None:
        """Decide on what no attempt brought about, and act."""
        self._note(policy.decide(event, self._state))
        await self._carry_out()

    async def _step(self) -> None:
        """Decide on everything that has happened by now; journal it; act."""
        while self._happened:
            made = self._happened.popleft()
            self._running.pop(made.attempt.step, None)
            decided: list[moves.Decision] = []
            try:
                decided = policy.decide(made.event, self._state) if made.event is not None else []
            finally:  # whatever becomes of the task, this attempt is over
                self._journal.over(made, outcome(made, decided))
                self._extras.used(made.attempt.step, made.used, getattr(made.event, "signals", None))
            self._note(decided, made)
        await self._carry_out()

    def _note(self, decided: list[moves.Decision], made: Made | None = None) -> None:
        """Decisions to be carried out. `made`: what they were made on."""
        if made is not None and isinstance(made.event, moves.Answered):
            self._learn(made.event, decided)
        self._why += explained(self._s.plan, decided, made)
        self._decided += decided
        for decision in decided:
            if isinstance(decision, moves.Missed):
                self._journal.missed(self._missed(decision))

    def _learn(self, answered: moves.Answered, decided: list[moves.Decision]) -> None:
        """What was weighed teaches how dear money is; an accepted answer may be looked at again."""
        first = decided[0] if decided else None  # it says what became of the answer
        if not isinstance(first, (moves.EndStep, moves.Escalate)) or (verdict := first.verdict) is None:
            return
        if self._s.purse is not None and verdict.weighed:
            self._s.purse.weighed(verdict, value_of(self._s.plan.aim, answered.money))
        step, name = self._s.plan.step(answered.step), asked_as(answered.tier, answered.samples)
        paid = answered.samples == 1 and step.ladder[rung_of(step, name)].kind == "remote"
        if paid or (verdict.accepted and verdict.keep == name and self._s.plan.aim.explore):
            given = resolve(step, self._task.input, self._state.known)
            said = Earlier(name, answered.output, answered.signals)
            earlier = tuple(e for e in self._state.steps[step.name].earlier if e.tier != name)
            if paid:
                self._watch.escalated(self._task.id, step, given, earlier, said)
            else:
                self._watch.accepted(self._task.id, step, given, said, earlier)

    def _missed(self, missed: moves.Missed) -> Attempt:
        """What a tier that cannot be asked would have got."""
        step = self._s.plan.step(missed.step)
        given = resolve(step, self._task.input, self._state.known)
        tokens_in, tokens_out = self._s.estimator.remote_tokens(step, given, {})
        return Attempt(
            id=new_id("a"), task=self._task.id, step=missed.step, tier=missed.tier.name, outcome="unavailable",
            reason=missed.reason, remote_tokens_in=tokens_in, remote_tokens_out=tokens_out,
        )  # fmt: skip

    # --- acting on decisions

    async def _carry_out(self) -> None:
        """Journal what is over, then act on what was decided. What is interrupted here is done as the task ends."""
        await self._journal.write()
        decided, self._decided = self._decided, []
        for decision in decided:
            self._act(decision)
            if isinstance(decision, moves.EndStep):
                await self._extras.ended(self._s.plan.step(decision.step), decision)

    def _act(self, decision: moves.Decision) -> None:
        match decision:
            case moves.Try():
                step, known = self._s.plan.step(decision.step), self._state.known
                given = resolve(step, self._task.input, known)
                self._begun.append((decision, given, memory_key(step, self._task.input, known)))
            case moves.Escalate():
                self._escalated(decision)
            case moves.EndStep():
                self._end_step(decision)
            case moves.Drop():
                if attempt := self._running.get(decision.step):
                    attempt.cancel()
            case moves.Missed() | moves.Finish():
                pass  # the one was journalled, the other is what the task waits for
            case _:
                assert_never(decision)

    def _escalated(self, up: moves.Escalate) -> None:
        self._tell(events.StepEscalated(task=self._task.id, step=up.step, from_tier=up.tier, to_tier=up.to,
                   reason=up.reason, confidence=up.confidence))  # fmt: skip
        self._log.debug(
            "step.escalated", task_id=self._task.id, step=up.step, from_tier=up.tier, to_tier=up.to
        )  # fmt: skip

    def _end_step(self, end: moves.EndStep) -> None:
        if end.status == "accepted":
            assert end.tier is not None and end.confidence is not None and end.output is not None
            self._tell(events.StepAccepted(task=self._task.id, step=end.step, tier=end.tier,
                       confidence=end.confidence, output=end.output))  # fmt: skip
        else:
            self._tell(events.StepEnded(task=self._task.id, step=end.step, status=end.status, reason=end.reason))

    def _tell(self, event: events.Event) -> None:
        """Whoever watches cannot harm what is watched."""
        try:
            self._publish(event)
        except Exception as e:
            cause = f"{type(e).__name__}: {e}"
            self._log.warning("event.not_delivered", task_id=self._task.id, kind=type(event).__name__, cause=cause)

    # --- the end

    async def _end(self, finish: moves.Finish) -> Result:
        """End what is open and write the terminal state; a store that fails gets a second chance, after a pause.

        May be done again when it was interrupted.
        """
        await self._stop_attempts()
        try:
            return await self._closed(finish)
        except Exception as e:
            self._log.warning("task.not_written", task_id=self._task.id, cause=f"{type(e).__name__}: {e}")
        await asyncio.sleep(PAUSE_S)
        try:
            return await self._closed(finish)
        except Exception as e:
            self._holds.broken(f"the end of task {self._task.id!r} cannot be written, no more holds are given: {e}")
            raise

    async def _stop_attempts(self) -> None:
        for attempt in self._running.values():
            attempt.cancel()
        if self._running:
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _closed(self, finish: moves.Finish) -> Result:
        for late in self._happened:
            self._journal.over(late, outcome(late, []))
        self._happened.clear()
        await self._carry_out()
        if self._result is None:
            self._result = self._made_up(finish)
        await self._write(self._result)
        return self._result

    async def _write(self, result: Result) -> None:
        try:
            await self._s.store.finish(self._s.run, result)
        except StoreError:  # it may be there already, when writing it was interrupted
            if all(known.task != result.task for known in await self._s.store.results(self._s.run)):
                raise
        self._tell(events.TaskFinished(task=self._task.id, result=result))
        cost = result.cost.micro_usd
        self._log.info("task.finished", task_id=result.task, status=result.status, ms=result.ms, micro_usd=cost)

    def _made_up(self, finish: moves.Finish) -> Result:
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
            output=self._state.outputs(),
            steps=steps,
            confidence=min(sure, default=None),
            cost=self._journal.cost,
            why=tuple(self._why),
            reason=finish.reason or None,
            ms=int((self._s.clock() - self._started) * 1000),
            position=self._task.position,
        )


def _kept(task: Task) -> bytes:
    """What the store keeps of a task, to go on with it. One that cannot be kept is of no use to its steps either."""
    try:
        return encode(task)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return encode(msgspec.structs.replace(task, input={}))


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
