"""One attempt at a step: hold, ask, confidence. However it ends, it is reported once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from protocols import events
from protocols.answers import Answer, Ask, Failed
from protocols.ids import new_id
from protocols.money import Amount, Limit
from protocols.tasks import Task
from swarm.dispatch import moves
from swarm.dispatch.accounts import explain
from swarm.dispatch.extras import TaskExtras
from swarm.dispatch.holds import Holds
from swarm.dispatch.judge import PLENTY, Money
from swarm.dispatch.rules import Prices, believed
from swarm.dispatch.setting import Publish, Setting
from swarm.errors import StoreError
from swarm.observe.secrets import cleaned
from swarm.plan.plan import PlannedStep, Tier
from swarm.state.base import Attempt, Refusal

log = structlog.get_logger(__name__)

NOTHING, NO_LIMIT = Amount(), Limit()
REMOTE_MS = 1000.0  # of a remote answer, as long as nothing has been measured
GRACE_MS = 20  # a host gives up so much later than the task, which alone can say that its time was up


class Made(msgspec.Struct, frozen=True):
    """An attempt that is over, with what the journal must know. `event` is None for one that was cancelled."""

    event: moves.OfAttempt | None
    attempt: Attempt
    hold: Amount
    used: Amount = NOTHING
    budget_left: dict[str, int | None] = {}  # "task.tokens" -> what a refusal found there


@dataclass(slots=True)
class _Trial:
    """An attempt on its way."""

    step: PlannedStep
    tier: Tier
    given: dict[str, Any]
    attempt: Attempt
    hold: Amount = NOTHING
    held: bool = False
    sent: bool = False


class Attempts:
    """Makes the attempts of one task. `alarmed`: steps whose certificate is known to be broken, as far as it is now."""

    def __init__(
        self, setting: Setting, holds: Holds, task: Task, publish: Publish, report: Callable[[Made], None],
        alarmed: Collection[str] = (), extras: TaskExtras | None = None,
    ) -> None:  # fmt: skip
        self._s = setting
        self._holds = holds
        self._task = task
        self._publish = publish
        self._report = report
        self._alarmed = alarmed
        self._extras = extras or TaskExtras(setting.extras, setting.run, task.id)
        self.started = setting.clock()  # when the task's time began to run
        self.spent = 0  # millionths of a dollar held or spent by the task

    async def make(self, decision: moves.Try, given: dict[str, Any], key: str | None = None) -> None:
        """Try this tier with these inputs. Cancelled, it is charged whole if it was paid for and sent, else nothing.

        `key`: under which the step remembers.
        """
        tier = decision.tier
        attempt = Attempt(id=new_id("a"), task=self._task.id, step=decision.step, tier=tier.name, outcome="cancelled")
        trial = _Trial(self._s.plan.step(decision.step), tier, given, attempt)
        try:
            if decision.after_ms:
                await asyncio.sleep(decision.after_ms / 1000)
            made = await self._known(trial, key) or await self._made(trial, decision)
        except asyncio.CancelledError:
            charged = trial.hold if trial.sent and tier.kind == "remote" else NOTHING
            self._ended(trial, Made(None, attempt, trial.hold, charged))
            raise
        except StoreError as e:  # fails closed: without a hold nothing was started
            failed = Failed(id=attempt.id, reason="unavailable", detail=cleaned(str(e)), retryable=True)
            made = Made(moves.AttemptFailed(decision.step, tier.name, failed, no_hold=True), attempt, trial.hold)
        except Exception as e:
            log.exception("attempt.raised", task_id=self._task.id, step=decision.step, tier=tier.name)
            made = _broken(
                trial, Failed(id=attempt.id, reason="error", detail=cleaned(f"{type(e).__name__}: {e}")[:500])
            )
        self._ended(trial, made)

    def _ended(self, trial: _Trial, made: Made) -> None:
        if trial.held:
            self._spend(made.used.micro_usd - trial.hold.micro_usd)
        self._report(made)

    def _spend(self, micro_usd: int) -> None:
        """So much more is held or spent."""
        self.spent += micro_usd
        if self._s.purse is not None:
            self._s.purse.change(micro_usd)

    async def _made(self, trial: _Trial, decision: moves.Try) -> Made:
        attempt, step, tier = trial.attempt, trial.step, trial.tier
        trial.hold = _times(self._s.estimator.hold(step, tier, trial.given), decision.samples)
        if trial.hold != NOTHING:
            limited = step.name if self._s.plan.step_limit != NO_LIMIT else None
            is_paid = tier.kind == "remote"
            refusal = await self._holds.take(attempt.id, self._task.id, trial.hold, step=limited, sent=not is_paid)
            if refusal is not None:
                event = moves.HoldRefused(step.name, tier.name, explain(refusal, step.name, tier.name))
                return Made(event, attempt, trial.hold, budget_left=_left(refusal))
            trial.held = True
            self._spend(trial.hold.micro_usd)
            if is_paid:
                await self._s.store.sent(attempt.id)
        self._publish(events.StepAsked(task=self._task.id, step=step.name, tier=tier.name))
        trial.sent = True
        reply = await self._extras.send(self._s.bus, step, self._ask(trial, decision))
        match reply:
            case Answer():
                return self._answered(trial, reply, decision.samples)
            case Failed():
                return self._failed(trial, reply)

    async def _known(self, trial: _Trial, key: str | None) -> Made | None:
        """What is known of this step from before, when it is asked for the first time."""
        if self._extras.empty:
            return None
        step = trial.step
        found = await self._extras.first(step, trial.given, key, alarmed=step.name in self._alarmed)
        trial.given = self._extras.given(step)
        if found is None:
            return None
        kept = found.answer
        event = moves.Recalled(
            step.name, kept.tier, kept.output, found.confidence, found.reason, found.rule, found.saved
        )
        tokens_in, tokens_out = self._s.estimator.remote_tokens(step, trial.given, kept.output)
        attempt = msgspec.structs.replace(
            trial.attempt, tier=kept.tier, confidence=found.confidence, saved=found.saved, remote_tokens_in=tokens_in,
            remote_tokens_out=tokens_out,
        )  # fmt: skip
        return Made(event, attempt, NOTHING)

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
            samples=decision.samples,
        )

    def _left_ms(self) -> int | None:
        if self._task.left_ms is None:
            return None
        return max(1, self._task.left_ms - int((self._s.clock() - self.started) * 1000)) + GRACE_MS

    def _answered(self, trial: _Trial, answer: Answer, samples: int) -> Made:
        step, tier = trial.step.name, trial.tier.name
        sure = self._confidence(trial, answer, samples)
        money, alarmed = self._money(trial, answer), step in self._alarmed
        event = moves.Answered(step, tier, answer.output, answer.signals, sure, money, alarmed, samples)
        return Made(event, self._journalled(trial, answer, answer.output, sure), trial.hold, _used(answer))

    def _failed(self, trial: _Trial, failed: Failed) -> Made:
        used = trial.hold if failed.unknown else _used(failed)  # something may have been spent that nobody saw
        event = moves.AttemptFailed(trial.step.name, trial.tier.name, failed)
        return Made(event, self._journalled(trial, failed, {}), trial.hold, used)

    def _journalled(
        self, trial: _Trial, reply: Answer | Failed, output: Mapping[str, Any], sure: float | None = None
    ) -> Attempt:
        tokens_in, tokens_out = self._s.estimator.remote_tokens(trial.step, trial.given, output)
        usage = reply.usage
        return msgspec.structs.replace(
            trial.attempt, host=reply.host, tokens_in=usage.tokens_in, tokens_out=usage.tokens_out, ms=usage.ms,
            micro_usd=usage.micro_usd, confidence=sure, remote_tokens_in=tokens_in, remote_tokens_out=tokens_out,
        )  # fmt: skip

    def _confidence(self, trial: _Trial, answer: Answer, samples: int) -> float:
        other = self._s.calibrations.get(f"{trial.step.specialist}/{trial.tier.name}")
        return believed(self._s.rules.get(trial.step.name), trial.tier, answer.signals, other, samples)

    def _money(self, trial: _Trial, answer: Answer) -> Money:
        """What there is to weigh other tiers with; the price of one is the most it can cost until more is known."""
        purse = self._s.purse
        if purse is None:
            return PLENTY
        others = (tier for tier in trial.step.ladder if tier is not trial.tier)
        paid = [tier for tier in others if tier.kind == "remote" and tier.name not in self._s.unavailable]
        holds = {tier.name: self._s.estimator.hold(trial.step, tier, trial.given).micro_usd for tier in paid}
        prices = {name: Prices(micro_usd, REMOTE_MS) for name, micro_usd in holds.items()}
        back = trial.hold.micro_usd - answer.usage.micro_usd if trial.held else 0  # of its hold, once it is settled
        return Money(purse.left(self.spent, back), purse.shadow_price(), prices)


def _broken(trial: _Trial, failed: Failed) -> Made:
    """An attempt that ended on this side; what was sent by then may have been used."""
    used = trial.hold if trial.sent else NOTHING
    return Made(moves.AttemptFailed(trial.step.name, trial.tier.name, failed), trial.attempt, trial.hold, used)


def _times(hold: Amount, samples: int) -> Amount:
    """The hold of so many candidates: each may be as long as a single answer."""
    if samples == 1:
        return hold
    return Amount(micro_usd=hold.micro_usd * samples, tokens=hold.tokens * samples, ms=hold.ms * samples)


def _used(reply: Answer | Failed) -> Amount:
    usage = reply.usage
    return Amount(micro_usd=usage.micro_usd, tokens=usage.tokens_in + usage.tokens_out, ms=usage.ms)


def _left(refusal: Refusal) -> dict[str, int | None]:
    return {f"{refusal.account.split(':', 1)[0]}.{refusal.unit}": refusal.left}
