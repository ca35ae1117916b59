"""One attempt outside any task's course: held, asked, settled and journalled like every other.

Used where an answer is wanted for what it teaches, not for a caller: labelled items, and answers looked at again.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from protocols.answers import Answer, Ask, Earlier, Failed
from protocols.ids import TaskId, new_id
from protocols.money import Amount
from swarm.dispatch.holds import Holds
from swarm.dispatch.setting import Setting
from swarm.plan.plan import PlannedStep, Tier
from swarm.state.base import Attempt, Refusal


async def ask_once(
    setting: Setting, holds: Holds, task: TaskId, step: PlannedStep, tier: Tier, given: dict[str, Any],
    earlier: tuple[Earlier, ...], samples: int = 1,
) -> Answer | Failed | Refusal:  # fmt: skip
    """What the tier says, paid by the account of `task`, which must be open. Cancelled, it is charged in full if sent.

    `samples`: candidates that it is to choose from. Raises `StoreError`; nothing was asked then, or what was used is
    still held.
    """
    one, is_paid = setting.estimator.hold(step, tier, given), tier.kind == "remote"
    hold = Amount(micro_usd=one.micro_usd * samples, tokens=one.tokens * samples, ms=one.ms * samples)
    attempt = Attempt(id=new_id("a"), task=task, step=step.name, tier=tier.name, outcome="looked")
    if (refusal := await holds.take(attempt.id, task, hold, sent=not is_paid)) is not None:
        return refusal
    if is_paid:
        await setting.store.sent(attempt.id)
    ask = Ask(id=attempt.id, task=task, step=step.name, specialist=step.specialist, tier=tier.name, input=given,
              max_tokens=hold.tokens, earlier=earlier, samples=samples)  # fmt: skip
    try:
        reply = await setting.bus.ask(ask)
    except BaseException:
        await asyncio.shield(setting.store.settle(attempt, setting.run, hold if is_paid else Amount()))
        holds.ended()
        raise
    usage = reply.usage
    used = Amount(micro_usd=usage.micro_usd, tokens=usage.tokens_in + usage.tokens_out)
    if isinstance(reply, Failed) and reply.unknown:
        used = hold
    done = msgspec.structs.replace(
        attempt, outcome="looked" if isinstance(reply, Answer) else "failed", host=reply.host, ms=usage.ms,
        tokens_in=usage.tokens_in, tokens_out=usage.tokens_out, micro_usd=used.micro_usd,
    )  # fmt: skip
    await setting.store.settle(done, setting.run, used)
    holds.ended()
    if setting.purse is not None:
        setting.purse.change(used.micro_usd)
    return reply
