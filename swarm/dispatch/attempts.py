"""One attempt at a step: hold, ask, confidence. However it ends, it is reported once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from protocols import events
from protocols.answers import Answer, Ask, Failed
from protocols.ids import new_id
from protocols.money import Amount
from protocols.tasks import Task
from swarm.dispatch import moves
from swarm.dispatch.accounts import explain
from swarm.dispatch.calibrate import confidence
from swarm.dispatch.holds import Holds
from swarm.dispatch.setting import Publish, Setting
from swarm.errors import StoreError
from swarm.plan.plan import PlannedStep, Tier
from swarm.state.base import Attempt, Refusal

log = structlog.get_logger(__name__)

NOTHING = Amount()
REMOTE_PRIOR = 0.9  # confidence in a remote answer that passes its checks, as long as nothing has been measured


@dataclass(frozen=True, slots=True)
class Made:
    """An attempt that is over, with what the journal must know. `event` is None for one that was cancelled."""

    event: moves.Answered | moves.AttemptFailed | moves.HoldRefused | None
    attempt: Attempt
    hold: Amount
    used: Amount = NOTHING
    budget_left: Mapping[str, int | None] = field(default_factory=dict)  # "task.tokens" -> what a refusal found there


@dataclass(slots=True)
class _Trial:
    """An attempt on its way."""

    step: PlannedStep
    tier: Tier
    given: dict[str, Any]
    attempt: Attempt
    hold: Amount = NOTHING
    sent: bool = False


class Attempts:
    """Makes the attempts of one task."""

    def __init__(
        self, setting: Setting, holds: Holds, task: Task, publish: Publish, report: Callable[[Made], None]
    ) -> None:
        self._s = setting
        self._holds = holds
        self._task = task
        self._publish = publish
        self._report = report
        self._started = setting.clock()

    async def make(self, decision: moves.Try, given: dict[str, Any]) -> None:
        """Try this tier with these inputs. Cancelled, it is charged whole if it was paid for and sent, else nothing."""
        tier = decision.tier
        attempt = Attempt(id=new_id("a"), task=self._task.id, step=decision.step, tier=tier.name, outcome="cancelled")
        trial = _Trial(self._s.plan.step(decision.step), tier, given, attempt)
        try:
            made = await self._made(trial, decision)
        except asyncio.CancelledError:
            charged = trial.hold if trial.sent and tier.kind == "remote" else NOTHING
            self._report(Made(None, attempt, trial.hold, charged))
            raise
        except StoreError as e:  # fails closed: without a hold nothing was started
            failed = Failed(id=attempt.id, reason="unavailable", detail=str(e), retryable=True)
            made = Made(moves.AttemptFailed(decision.step, tier.name, failed, no_hold=True), attempt, trial.hold)
        except Exception as e:
            log.exception("attempt.raised", task_id=self._task.id, step=decision.step, tier=tier.name)
            made = _broken(trial, Failed(id=attempt.id, reason="error", detail=f"{type(e).__name__}: {e}"[:500]))
        self._report(made)

    async def _made(self, trial: _Trial, decision: moves.Try) -> Made:
        attempt, step, tier = trial.attempt, trial.step, trial.tier
        trial.hold = self._s.estimator.hold(step, tier, trial.given)
        if trial.hold != NOTHING:
            refusal = await self._holds.take(attempt.id, self._task.id, trial.hold)
            if refusal is not None:
                event = moves.HoldRefused(step.name, tier.name, explain(refusal, step.name, tier.name))
                return Made(event, attempt, trial.hold, budget_left=_left(refusal))
        self._publish(events.StepAsked(task=self._task.id, step=step.name, tier=tier.name))
        trial.sent = True
        reply = await self._s.bus.ask(self._ask(trial, decision))
        match reply:
            case Answer():
                return self._answered(trial, reply)
            case Failed():
                return self._failed(trial, reply)

    def _ask(self, trial: _Trial, decision: moves.Try) -> Ask:
        return Ask(
            id=trial.attempt.id,
            task=self._task.id,
            step=trial.step.name,
            specialist=trial.step.specialist,
            tier=trial.tier.name,
            input=trial.given,
            max_tokens=trial.hold.tokens,
            left_ms=self._left_ms(),
            earlier=decision.earlier,
        )

    def _left_ms(self) -> int | None:
        if self._task.left_ms is None:
            return None
        return max(1, self._task.left_ms - int((self._s.clock() - self._started) * 1000))

    def _answered(self, trial: _Trial, answer: Answer) -> Made:
        step, tier = trial.step.name, trial.tier.name
        sure = self._confidence(trial, answer)
        attempt = msgspec.structs.replace(self._journalled(trial, answer, answer.output), confidence=sure)
        event = moves.Answered(step, tier, answer.output, answer.signals, sure)
        return Made(event, attempt, trial.hold, _used(answer))

    def _failed(self, trial: _Trial, failed: Failed) -> Made:
        used = trial.hold if failed.unknown else _used(failed)  # something may have been spent that nobody saw
        event = moves.AttemptFailed(trial.step.name, trial.tier.name, failed)
        return Made(event, self._journalled(trial, failed, {}), trial.hold, used)

    def _journalled(self, trial: _Trial, reply: Answer | Failed, output: Mapping[str, Any]) -> Attempt:
        tokens_in, tokens_out = self._s.estimator.remote_tokens(trial.step, trial.given, output)
        usage = reply.usage
        return msgspec.structs.replace(
            trial.attempt, host=reply.host, tokens_in=usage.tokens_in, tokens_out=usage.tokens_out, ms=usage.ms,
            micro_usd=usage.micro_usd, remote_tokens_in=tokens_in, remote_tokens_out=tokens_out,
        )  # fmt: skip

    def _confidence(self, trial: _Trial, answer: Answer) -> float:
        calibration = self._s.calibrations.get(f"{trial.step.specialist}/{trial.tier.name}")
        signals = answer.signals
        if calibration is None and trial.tier.kind == "remote" and signals.p is None and not signals.checks_failed:
            return REMOTE_PRIOR
        return confidence(signals, calibration)


def _broken(trial: _Trial, failed: Failed) -> Made:
    """An attempt that ended on this side; what was sent by then may have been used."""
    used = trial.hold if trial.sent else NOTHING
    return Made(moves.AttemptFailed(trial.step.name, trial.tier.name, failed), trial.attempt, trial.hold, used)


def _used(reply: Answer | Failed) -> Amount:
    usage = reply.usage
    return Amount(micro_usd=usage.micro_usd, tokens=usage.tokens_in + usage.tokens_out, ms=usage.ms)


def _left(refusal: Refusal) -> dict[str, int | None]:
    return {f"{refusal.account.split(':', 1)[0]}.{refusal.unit}": refusal.left}
