"""A host that says what it is told to, for tests: it answers, fails, hangs, refuses and dies as scripted.

It stands where a real host stands (`swarm.bus.local.Mailbox`), so bus, dispatcher and store above it are the real ones.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from protocols.answers import Answer, Ask, Failed, Signals, Usage
from protocols.control import Cancel, Health, Overloaded
from protocols.envelope import Envelope
from protocols.ids import AttemptId, HostId
from protocols.packs import Pack
from swarm.bus.base import HostLost
from swarm.bus.pending import raised
from swarm.bus.script import Answers, Dies, Fails, Hangs, Refuses, Says, Script
from swarm.config.schemas import Validator

REMEMBERED = 4096  # answers kept for an ask that is delivered again


class ScriptedHost:
    """One host that follows a script; several may follow the same one.

    At most `mailbox` asks at once. `code` answers for that tier what the script leaves out. Answers must satisfy the
    schemas of `packs` (by specialist), as those of a real host do. `sleep` is what delays go by.
    """

    def __init__(
        self,
        script: Script | Answers,
        *,
        host: HostId = "scripted",
        mailbox: int = 256,
        packs: Mapping[str, Pack] | None = None,
        code: Callable[[Ask], Awaitable[Answer | Failed]] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.host = host
        self.script = script if isinstance(script, Script) else Script(script)
        self.cancelled: list[AttemptId] = []
        self._mailbox = mailbox
        self._schemas = {name: Validator(pack.output_schema) for name, pack in (packs or {}).items()}
        self._code = code
        self._sleep = sleep
        self._active: dict[AttemptId, asyncio.Task[Answer | Failed]] = {}
        self._answered: OrderedDict[AttemptId, Answer | Failed] = OrderedDict()
        self._outbox: list[Envelope] = []
        self._stirred = asyncio.Event()
        self._dead: str | None = None

    def deliver(self, batch: Sequence[Envelope]) -> list[Overloaded]:
        """Raises `HostLost` once the host is dead, or when the script lets it die of this batch."""
        self._check()
        refused = []
        for envelope in batch:
            match envelope.body:
                case Ask() as ask:
                    if (retry_ms := self._take(ask)) is not None:
                        refused.append(Overloaded(id=ask.id, host=self.host, retry_ms=retry_ms))
                case Cancel(id=id):
                    self.cancelled.append(id)
                    if task := self._active.get(id):
                        task.cancel()
        return refused

    async def collect(self) -> list[Envelope]:
        """The answers that are ready, waiting for the first. Raises `HostLost` once the host is dead."""
        while not self._outbox:
            self._check()
            self._stirred.clear()
            await self._stirred.wait()
        self._check()
        ready, self._outbox = self._outbox, []
        return ready

    def health(self) -> Health:
        self._check()
        running, waiting = len(self._active), len(self._outbox)
        return Health(host=self.host, waiting=waiting, running=running, answered=len(self._answered), rss_bytes=0)

    def die(self, cause: str = "it died as scripted") -> None:
        """End now; what was not collected is lost."""
        self._dead = cause
        self.close()
        self._stirred.set()

    def close(self) -> None:
        for task in self._active.values():
            task.cancel()

    def _check(self) -> None:
        if self._dead is not None:
            raise HostLost(f"host {self.host!r} is gone: {self._dead}")

    def _take(self, ask: Ask) -> int | None:
        """Begin on an ask. A time in milliseconds: it was refused and may come again then."""
        if ask.id in self._active:
            return None
        if (known := self._answered.get(ask.id)) is not None:
            self._send(known)
            return None
        if len(self._active) >= self._mailbox:
            return Refuses().retry_ms
        match self.script.next(ask):
            case Refuses(retry_ms):
                return retry_ms
            case Dies(cause):
                self.die(cause)
                self._check()
            case reply:
                self._active[ask.id] = asyncio.create_task(self._answer(ask, reply))
                self._active[ask.id].add_done_callback(partial(self._done, ask))
        return None

    async def _answer(self, ask: Ask, reply: Says | Fails | Hangs | None) -> Answer | Failed:
        match reply:
            case None if self._code is not None and ask.tier == "code":
                return await self._code(ask)
            case None:
                detail = f"the script says nothing for step {ask.step!r} at tier {ask.tier!r}"
                return Failed(id=ask.id, reason="unavailable", detail=detail)
            case Hangs():
                await asyncio.Event().wait()
                raise AssertionError("nobody sets this event")
            case Says() | Fails():
                if reply.after_s:
                    await self._sleep(reply.after_s)
                return self._said(ask, reply)

    def _said(self, ask: Ask, reply: Says | Fails) -> Answer | Failed:
        usage = Usage(tokens_in=reply.tokens, micro_usd=reply.micro_usd)
        if isinstance(reply, Fails):
            return Failed(
                id=ask.id, reason=reply.reason, detail=reply.detail, retryable=reply.retryable, unknown=reply.unknown,
                usage=usage, host=self.host,
            )  # fmt: skip
        output = dict(reply.output)
        schema = self._schemas.get(ask.specialist)
        if schema is not None and (problem := schema.problem(output)):
            detail = f"the script's answer to step {ask.step!r}: {problem}"
            return Failed(id=ask.id, reason="invalid_output", detail=detail, usage=usage, host=self.host)
        signals = reply.signals or Signals(p=reply.confidence)
        return Answer(id=ask.id, output=output, signals=signals, usage=usage, host=self.host)

    def _done(self, ask: Ask, work: asyncio.Task[Answer | Failed]) -> None:
        del self._active[ask.id]
        reply: Answer | Failed
        if work.cancelled():
            reply = Failed(id=ask.id, reason="cancelled", host=self.host)
        elif (error := work.exception()) is not None:
            detail = f"{type(error).__name__}: {error}"
            reply = Failed(id=ask.id, reason="error", detail=detail, host=self.host)
        else:
            reply = work.result()
        if not raised(reply):
            self._answered[ask.id] = reply
        if len(self._answered) > REMEMBERED:
            self._answered.popitem(last=False)
        self._send(reply)

    def _send(self, reply: Answer | Failed) -> None:
        self._outbox.append(Envelope(to="dispatcher", sender=self.host, body=reply))
        self._stirred.set()
