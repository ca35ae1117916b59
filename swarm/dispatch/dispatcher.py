"""The dispatcher's hands: carries out what `policy.decide` says, one coroutine a task.

Order of one attempt: hold → ask → answer → confidence → decide → settle and journal → act. Nothing counts before it is
in the store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import msgspec
import structlog

from protocols import events
from protocols.answers import Answer, Ask, Failed
from protocols.control import Calibration
from protocols.ids import AttemptId, RunId, TaskId, new_id
from protocols.money import Amount
from protocols.tasks import Result, StepResult, Task, Why
from swarm.bus.bus import Bus
from swarm.dispatch import policy
from swarm.dispatch.accounts import Estimator, explain
from swarm.dispatch.calibrate import confidence
from swarm.errors import StoreError
from swarm.plan.plan import MissingInput, Plan, PlannedStep, Tier, resolve
from swarm.state.base import Attempt, Refusal, Store

log = structlog.get_logger(__name__)

REMOTE_PRIOR = 0.9  # confidence in a remote answer that passes its checks, as long as nothing has been measured
Publish = Callable[[events.Event], None]


@dataclass(frozen=True, slots=True)
class Setting:
    """What all tasks of a run share. Handed in, so that a test can hold each part."""

    run: RunId
    plan: Plan
    bus: Bus
    store: Store
    estimator: Estimator
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)  # "specialist/tier" -> map
    unavailable: Mapping[str, str] = field(default_factory=dict)  # tier -> why it cannot be asked
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class _Made:
    """An attempt that is over, with what the journal must know."""

    event: policy.Answered | policy.AttemptFailed | policy.HoldRefused
    attempt: Attempt
    hold: Amount
    used: Amount


class Dispatcher:
    """Runs tasks against one `Setting`. Any number may run at once on the same event loop."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._freed = asyncio.Event()

    async def run(self, task: Task, publish: Publish) -> Result:
        """The task's one terminal state. Cancelling this coroutine ends it as `cancelled`, with its holds voided."""
        return await _Course(self, self._setting, task, publish).run()

    async def hold(self, attempt: AttemptId, task: TaskId, amount: Amount) -> Refusal | None:
        """Hold `amount`, or say why not. Waits while the holds of others stand in the way: they may settle for less."""
        s = self._setting
        while True:
            freed = self._freed
            refusal = await s.store.hold(attempt, s.run, task, amount)
            if refusal is None or not refusal.passing:
                return refusal
            await freed.wait()

    def money_moved(self) -> None:
        """A hold has ended: those who wait for room may try again."""
        self._freed.set()
        self._freed = asyncio.Event()


class _Course:
    """One task from acceptance to its terminal state."""

    def __init__(self, dispatcher: Dispatcher, setting: Setting, task: Task, publish: Publish) -> None:
        self._dispatcher = dispatcher
        self._s = setting
        self._task = task
        self._publish = publish
        self._state = policy.TaskState(setting.plan, setting.unavailable)
        self._happened: asyncio.Queue[_Made] = asyncio.Queue()
        self._attempts: dict[str, asyncio.Task[None]] = {}
        self._cost = Amount()
        self._why: list[Why] = []
        self._started = setting.clock()
        self._log = log.bind(task_id=task.id)

    async def run(self) -> Result:
        await self._s.store.accept(self._s.run, self._task.id, self._s.plan.task_limit)
        self._publish(events.TaskAccepted(task=self._task.id))
        try:
            async with asyncio.timeout(None if self._task.left_ms is None else self._task.left_ms / 1000):
                await self._act(policy.decide(policy.Begin(), self._state))
                while self._state.finished is None:
                    await self._step()
        except TimeoutError:
            await self._act(policy.decide(policy.TimeUp(), self._state))
        except asyncio.CancelledError:
            await self._stop_attempts()
            await asyncio.shield(self._close(policy.Finish("cancelled", "the caller cancelled it")))
            raise
        await self._stop_attempts()
        assert self._state.finished is not None
        return await self._close(self._state.finished)

    async def _step(self) -> None:
        """Wait for something to happen; decide on all that has; journal it; act."""
        happened = [await self._happened.get()]
        while not self._happened.empty():
            happened.append(self._happened.get_nowait())
        decisions: list[policy.Decision] = []
        journal = []
        for made in happened:
            decided = policy.decide(made.event, self._state)
            self._explain(made, decided)
            journal.append(self._journal(made, _outcome(made, decided)))
            decisions += decided
        await asyncio.gather(*journal)
        self._dispatcher.money_moved()
        await self._act(decisions)

    async def _journal(self, made: _Made, outcome: str) -> None:
        attempt = msgspec.structs.replace(made.attempt, outcome=outcome)
        self._cost += made.used
        await self._s.store.settle(attempt, self._s.run, made.used)

    # --- acting on decisions

    async def _act(self, decisions: list[policy.Decision]) -> None:
        for decision in decisions:
            match decision:
                case policy.Try():
                    self._begin(decision)
                case policy.Escalate():
                    self._publish(events.StepEscalated(task=self._task.id, step=decision.step, from_tier=decision.tier,
                                  to_tier=decision.to, reason=decision.reason, confidence=decision.confidence))  # fmt: skip
                    self._log.debug("step.escalated", step=decision.step, from_tier=decision.tier, to_tier=decision.to)
                case policy.Missed():
                    await self._miss(decision)
                case policy.EndStep():
                    self._end_step(decision)
                case policy.Drop():
                    if attempt := self._attempts.get(decision.step):
                        attempt.cancel()
                case policy.Finish():
                    self._log.debug("task.decided", status=decision.status)
                case _:
                    assert_never(decision)

    def _begin(self, decision: policy.Try) -> None:
        step = self._s.plan.step(decision.step)
        self._attempts[step.name] = asyncio.create_task(self._attempt(step, decision))

    def _end_step(self, end: policy.EndStep) -> None:
        if end.status == "accepted":
            assert end.tier is not None and end.confidence is not None and end.output is not None
            self._publish(events.StepAccepted(task=self._task.id, step=end.step, tier=end.tier,
                          confidence=end.confidence, output=end.output))  # fmt: skip
        else:
            self._publish(events.StepEnded(task=self._task.id, step=end.step, status=end.status, reason=end.reason))

    async def _miss(self, missed: policy.Missed) -> None:
        """Journal what a tier that cannot be asked would have got."""
        step = self._s.plan.step(missed.step)
        given = resolve(step, self._task.input, self._state.outputs())
        tokens = self._s.estimator.remote_tokens(step, given, {})
        attempt = Attempt(
            id=new_id("a"), task=self._task.id, step=missed.step, tier=missed.tier.name, outcome="unavailable",
            reason=missed.reason, remote_tokens_in=tokens[0], remote_tokens_out=tokens[1],
        )  # fmt: skip
        self._why.append(
            Why(
                step=missed.step,
                decision="missed",
                tier=missed.tier.name,
                accept_at=step.accept_at,
                reason=missed.reason,
            )
        )
        await self._s.store.void(attempt, self._s.run)

    # --- one attempt

    async def _attempt(self, step: PlannedStep, decision: policy.Try) -> None:
        """Hold, ask, and report what came of it. A cancelled attempt is voided, or charged whole if paid and sent."""
        tier, id = decision.tier, new_id("a")
        attempt = Attempt(id=id, task=self._task.id, step=step.name, tier=tier.name, outcome="cancelled")
        sent = False
        hold = Amount()
        try:
            given = resolve(step, self._task.input, self._state.outputs())
            hold = self._s.estimator.hold(step, tier, given)
            if hold != Amount():
                if refusal := await self._dispatcher.hold(id, self._task.id, hold):
                    event = policy.HoldRefused(step.name, tier.name, explain(refusal, step.name, tier.name))
                    self._happened.put_nowait(_Made(event, attempt, hold, Amount()))
                    return
            self._publish(events.StepAsked(task=self._task.id, step=step.name, tier=tier.name))
            sent = True
            reply = await self._s.bus.ask(self._ask(id, step, decision, given, hold))
            self._happened.put_nowait(self._made(step, tier, attempt, hold, reply, given))
        except asyncio.CancelledError:
            await asyncio.shield(self._cancelled(attempt, tier, hold, sent))
            raise
        except MissingInput as e:
            failed = Failed(id=id, reason="error", detail=str(e))
            self._happened.put_nowait(
                _Made(policy.AttemptFailed(step.name, tier.name, failed), attempt, hold, Amount())
            )
        except StoreError as e:  # fails closed: nothing was started, nothing else of this task will be
            failed = Failed(id=id, reason="unavailable", detail=str(e))
            self._happened.put_nowait(
                _Made(policy.AttemptFailed(step.name, tier.name, failed), attempt, hold, Amount())
            )

    def _ask(self, id: str, step: PlannedStep, decision: policy.Try, given: dict[str, Any], hold: Amount) -> Ask:
        return Ask(
            id=id,
            task=self._task.id,
            step=step.name,
            specialist=step.specialist,
            tier=decision.tier.name,
            input=given,
            max_tokens=hold.tokens,
            left_ms=self._left_ms(),
            earlier=decision.earlier,
        )

    def _left_ms(self) -> int | None:
        if self._task.left_ms is None:
            return None
        return max(1, self._task.left_ms - int((self._s.clock() - self._started) * 1000))

    def _made(
        self,
        step: PlannedStep,
        tier: Tier,
        attempt: Attempt,
        hold: Amount,
        reply: Answer | Failed,
        given: dict[str, Any],
    ) -> _Made:
        usage = reply.usage
        output = reply.output if isinstance(reply, Answer) else {}
        remote = self._s.estimator.remote_tokens(step, given, output)
        sure = None
        if isinstance(reply, Answer):
            sure = self._confidence(step, tier, reply)
        attempt = msgspec.structs.replace(
            attempt, host=reply.host, tokens_in=usage.tokens_in, tokens_out=usage.tokens_out, ms=usage.ms,
            micro_usd=usage.micro_usd, confidence=sure, remote_tokens_in=remote[0], remote_tokens_out=remote[1],
        )  # fmt: skip
        used = Amount(micro_usd=usage.micro_usd, tokens=usage.tokens_in + usage.tokens_out, ms=usage.ms)
        match reply:
            case Answer():
                assert sure is not None
                return _Made(
                    policy.Answered(step.name, tier.name, reply.output, reply.signals, sure), attempt, hold, used
                )
            case Failed():
                if reply.unknown:
                    used = hold  # something may have been spent that nobody saw
                return _Made(policy.AttemptFailed(step.name, tier.name, reply), attempt, hold, used)

    def _confidence(self, step: PlannedStep, tier: Tier, answer: Answer) -> float:
        calibration = self._s.calibrations.get(f"{step.specialist}/{tier.name}")
        if calibration is None and tier.kind == "remote" and not answer.signals.checks_failed:
            return REMOTE_PRIOR
        return confidence(answer.signals, calibration)

    async def _cancelled(self, attempt: Attempt, tier: Tier, hold: Amount, sent: bool) -> None:
        if sent and tier.kind == "remote":
            self._cost += hold
            await self._s.store.settle(attempt, self._s.run, hold)
        elif hold != Amount():
            await self._s.store.void(attempt, self._s.run)
        self._dispatcher.money_moved()

    async def _stop_attempts(self) -> None:
        for attempt in self._attempts.values():
            attempt.cancel()
        await asyncio.gather(*self._attempts.values(), return_exceptions=True)

    # --- the end

    def _explain(self, made: _Made, decided: list[policy.Decision]) -> None:
        event = made.event
        planned = self._s.plan.step(event.step)
        answered = isinstance(event, policy.Answered)
        for decision in decided:
            if isinstance(decision, policy.EndStep | policy.Escalate) and decision.step == event.step:
                name = "escalate" if isinstance(decision, policy.Escalate) else decision.status
                signals = _shown(event.signals) if isinstance(event, policy.Answered) else {}
                self._why.append(
                    Why(
                        step=event.step,
                        decision=name,
                        tier=event.tier,
                        accept_at=planned.accept_at,
                        confidence=event.confidence if isinstance(event, policy.Answered) else None,
                        signals=signals,
                        hold=made.hold if made.hold != Amount() else None,
                        reason=decision.reason if decision.reason or not answered else "confident enough",
                    )  # fmt: skip
                )

    async def _close(self, finish: policy.Finish) -> Result:
        result = self._result(finish)
        await self._s.store.finish(self._s.run, result)
        self._publish(events.TaskFinished(task=self._task.id, result=result))
        self._log.info("task.finished", status=result.status, ms=result.ms, micro_usd=result.cost.micro_usd)
        return result

    def _result(self, finish: policy.Finish) -> Result:
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


def _outcome(made: _Made, decided: list[policy.Decision]) -> str:
    """What became of an attempt, in the receipt's words."""
    if not isinstance(made.event, policy.Answered):
        return "refused" if isinstance(made.event, policy.HoldRefused) else "failed"
    for decision in decided:
        if (
            isinstance(decision, policy.EndStep)
            and decision.step == made.event.step
            and decision.tier == made.event.tier
        ):
            return decision.status
    return "escalated"


def _shown(signals: Any) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(signals)
    return shown
