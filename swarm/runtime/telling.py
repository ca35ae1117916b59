"""What happens to a task of a detached dispatcher, told while it happens to a listener in another process."""

from __future__ import annotations

import asyncio

from protocols.events import Event, TaskFinished


class Telling:
    """The events of one task that its listener has not fetched yet, in order, but for the last, which is the answer.

    The listener fetches; nothing is pushed. A streaming generator of Ray's would do for the way there, but an async one
    ends only when its caller has acknowledged every item, and holds up the actor's event loop for that: a caller that
    is stopped would stop the dispatcher. Here nobody waits for a listener. What he leaves here is no more than the
    events of one task, whose outputs the task itself holds, and it is gone with the task.
    """

    def __init__(self) -> None:
        self._kept: list[Event] = []
        self._over = False
        self._stirred = asyncio.Event()

    def tell(self, event: Event) -> None:
        """To be called from the event loop that this was made on."""
        if not isinstance(event, TaskFinished):
            self._kept.append(event)
            self._stirred.set()

    async def fetched(self) -> list[Event]:
        """The events since the last call, as soon as there is one; none when the task is over."""
        while not self._kept and not self._over:
            self._stirred.clear()
            await self._stirred.wait()
        return self.take()

    def take(self) -> list[Event]:
        """The events since the last call, if any."""
        taken, self._kept = self._kept, []
        return taken

    def end(self) -> None:
        """The task is over."""
        self._over = True
        self._stirred.set()
