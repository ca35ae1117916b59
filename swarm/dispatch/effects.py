"""Writes to the world outside: each is asked once, though its host may die and its run be broken off.

A write is in the outbox before it is asked, and its outcome is there before it counts. One that is found there without
an outcome was asked by somebody who is gone: it may have been done or not. It is not asked again, unless its pack says
that its tool is idempotent, that is, does the same thing once however often it is given the same key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog

from protocols.answers import Answer, Ask, Failed, Usage
from protocols.ids import RunId
from swarm.config.schemas import Validator
from swarm.dispatch.outbox import Effect, Outbox
from swarm.errors import StoreError
from swarm.plan.plan import PlannedStep
from swarm.state.records import RecordExists

log = structlog.get_logger(__name__)

NOT_CALLED = ("overloaded", "unavailable", "declined", "too_long")  # reasons, where nothing is unknown
TOLD = ("tool_error", "invalid_output")  # reasons that the tool itself has brought about: it is over

Send = Callable[[Ask], Awaitable[Answer | Failed]]


class Effects:
    """One run's. `plan_hash`: of the plan whose steps it asks."""

    def __init__(self, outbox: Outbox, plan_hash: str, run: RunId) -> None:
        self._outbox = outbox
        self._plan_hash = plan_hash
        self._run = run

    def key(self, step: PlannedStep, ask: Ask) -> str:
        """Names this write, the same after any crash. What is not of the plan, as a step's notes, does not count."""
        given = {name: value for name, value in ask.input.items() if name in step.inputs}
        content = [self._plan_hash, self._run, ask.task, step.name, given]
        plain = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(plain.encode()).hexdigest()

    async def ask(self, step: PlannedStep, ask: Ask, send: Send) -> Answer | Failed:
        """What `send` brings; for a write, what is known of it from before instead, and it is noted.

        Raises `StoreError`: it was not sent then.
        """
        if step.pack.effects == "read":
            return await send(ask)
        key = self.key(step, ask)
        if (known := await self._before(step, ask, key)) is not None:
            return known
        sent = await send(msgspec.structs.replace(ask, key=key, once=not step.pack.idempotent))
        reply, effect = outcome(step, ask, key, sent)
        try:
            await (self._outbox.forget(key) if effect is None else self._outbox.put(key, effect))
        except StoreError as e:  # it is known here at least, and the journal may still take it
            log.error("effect.not_written", task_id=ask.task, step=step.name, key=key, cause=str(e))
        return reply

    async def _before(self, step: PlannedStep, ask: Ask, key: str) -> Answer | Failed | None:
        """Intend it; or what became of it when it was asked before."""
        intent = Effect(task=ask.task, step=step.name, state="intended", input=ask.input)
        try:
            await self._outbox.put(key, intent, new=True)
            return None
        except RecordExists:
            known = await self._outbox.find(key) or intent
        if known.reply is not None:
            return _again(step, ask, known.reply)
        if step.pack.idempotent:
            return None
        why = known.why or "its run was broken off before an answer was noted"
        await self._outbox.put(key, msgspec.structs.replace(known, state="unknown", why=why))
        return _unknown(ask, key, why)


def outcome(step: PlannedStep, ask: Ask, key: str, reply: Answer | Failed) -> tuple[Answer | Failed, Effect | None]:
    """What to answer, and what to note; None where the tool was not called at all."""
    effect = Effect(task=ask.task, step=step.name, state="done", input=ask.input, reply=reply)
    if isinstance(reply, Answer):
        return reply, effect
    if reply.reason in NOT_CALLED and not reply.unknown:
        return reply, None
    if reply.reason in TOLD:
        return reply, msgspec.structs.replace(effect, state="failed")
    why = f"{reply.reason}: {reply.detail}" if reply.detail else reply.reason
    if step.pack.idempotent:
        return reply, msgspec.structs.replace(effect, state="intended", reply=None, why=why)
    failed = msgspec.structs.replace(_unknown(ask, key, why), usage=reply.usage, host=reply.host)
    return failed, msgspec.structs.replace(effect, state="unknown", reply=None, why=why)


def settled(effect: Effect, output: dict[str, Any]) -> Effect:
    """As a person settles a write of which nobody knows: it was done, and this is its output."""
    return msgspec.structs.replace(effect, state="done", reply=Answer(id="", output=output), why="a person has said so")


def _again(step: PlannedStep, ask: Ask, reply: Answer | Failed) -> Answer | Failed:
    """What is known of a write, as the outcome of this ask; it used nothing now."""
    if isinstance(reply, Answer) and (problem := Validator(step.pack.output_schema).problem(reply.output)):
        detail = f"the output that a person has given for this write is none of pack {step.pack.name!r}: {problem}"
        return Failed(id=ask.id, reason="invalid_output", detail=detail)
    return msgspec.structs.replace(reply, id=ask.id, usage=Usage())


def _unknown(ask: Ask, key: str, why: str) -> Failed:
    detail = f"the outcome of this write is unknown ({why[:300]}); it is not repeated, settle it as effect {key[:12]}"
    return Failed(id=ask.id, reason="unknown_effect", detail=detail)
