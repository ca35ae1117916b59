"""Asks that are answered in their callers' own asyncio tasks: no message is sent, but they end with the bus."""

from __future__ import annotations

import asyncio
from typing import Any

from protocols.answers import Answer, Ask, Failed
from protocols.control import Overloaded
from protocols.ids import AttemptId
from swarm.bus.line import Line


class Desks:
    """Knows who is being served, so that closing leaves nobody waiting."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._served: dict[AttemptId, asyncio.Task[Any]] = {}
        self._sent_away: set[asyncio.Task[Any]] = set()

    async def answer(self, line: Line, ask: Ask) -> Answer | Failed | None:
        """The host's answer, or a failure when `close` came first.

        `None`: this ask has to be sent to it, as it may not be asked without a message, or has no room now.
        """
        desk = line.desk
        if desk is None:
            return None
        if self._loop is None:
            self._loop = asyncio.get_running_loop()  # each time it would cost a system call
        caller = asyncio.current_task(self._loop)
        assert caller is not None
        self._served[ask.id] = caller
        line.unanswered += 1
        try:
            reply = await desk.answer(ask)
        except asyncio.CancelledError:
            if caller in self._sent_away and caller.uncancel() == 0:  # by us alone: the caller goes on with his answer
                return after_the_end(ask)
            raise
        finally:
            line.unanswered -= 1
            del self._served[ask.id]
            self._sent_away.discard(caller)
        if isinstance(reply, Overloaded):
            return None
        line.answered += 1
        return reply

    async def close(self) -> None:
        """Stop serving. Work that does not react to that is not waited for."""
        self._sent_away.update(self._served.values())
        for caller in self._served.values():
            caller.cancel()
        await asyncio.sleep(0)  # so that it has ended before its host does


def after_the_end(ask: Ask) -> Failed:
    """What becomes of an ask when the swarm is closed."""
    return Failed(id=ask.id, reason="cancelled", detail="the swarm was closed")
