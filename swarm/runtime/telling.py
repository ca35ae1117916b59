"""What happens to a task of a detached dispatcher, told while it happens to a listener in another process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from protocols import codec
from protocols.detached import Answered
from protocols.events import Event, TaskFinished
from protocols.ids import TaskId
from protocols.tasks import Result
from protocols.values import more_than

log = structlog.get_logger(__name__)

UNHEARD_S = 600.0  # what nobody fetches is kept as long as that, and a task that was announced may be as late


class Telling:
    """The events of one task that its listener has not fetched yet, in order, but for the last, which is the answer.

    The listener fetches; nothing is pushed. A streaming generator of Ray's would do for the way there, but an async one
    ends only when its caller has acknowledged every item, and holds up the actor's event loop for that: a caller that
    is stopped would stop the dispatcher. Here nobody waits for a listener. What he leaves here is no more than the
    events of one task, whose outputs the task itself holds.
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
        """The events since the last call that one message carries, as soon as there is one; none when it is over."""
        while not (events := self._take()) and not self._over:
            self._stirred.clear()
            await self._stirred.wait()
        return events

    def answered(self, result: Result) -> bytes:
        """The packed `Answered`, with what was not fetched; where that is too much, it is kept to be fetched.

        Raises `WireError` for a result that is too large by itself.
        """
        if (data := _packed(Answered(result=result, untold=self._kept))) is None:
            return codec.pack(Answered(result=result))
        self._kept = []
        return data

    def _take(self) -> list[Event]:
        """The first of the events that are left, as many as one message carries."""
        count = len(self._kept)
        while count and _packed(self._kept[:count]) is None:
            if count > 1:
                count //= 2
                continue
            event = self._kept.pop(0)
            log.warning("event.not_told", task_id=event.task, kind=type(event).__name__, cause="does not fit a message")
            count = len(self._kept)
        taken, self._kept = self._kept[:count], self._kept[count:]
        return taken

    @property
    def all_told(self) -> bool:
        return not self._kept

    def end(self) -> None:
        """The task is over."""
        self._over = True
        self._stirred.set()


class Tellings:
    """One for each task that is listened to, until its listener has everything, or has not come for `UNHEARD_S`."""

    def __init__(self) -> None:
        self._all: dict[TaskId, Telling] = {}
        self._alarms: dict[TaskId, asyncio.TimerHandle] = {}

    def expect(self, task: TaskId) -> None:
        """The task is going to be told of; until then, who fetches waits."""
        self._all[task] = Telling()
        self._drop_later(task)

    @contextmanager
    def of(self, task: TaskId) -> Iterator[Telling]:
        """The one of a task that is worked on meanwhile. What it leaves, as after an error, can still be fetched."""
        telling = self._all.setdefault(task, Telling())
        self._keep(task)
        try:
            yield telling
        finally:
            telling.end()
            if telling.all_told:
                self.drop(task)
            elif task in self._all:  # else its listener has gone away
                self._drop_later(task)

    async def fetched(self, task: TaskId) -> list[Event]:
        """`Telling.fetched`; none, too, for a task that nothing is told of."""
        telling = self._all.get(task)
        events = [] if telling is None else await telling.fetched()
        if not events:
            self.drop(task)
        return events

    def drop(self, task: TaskId) -> None:
        """Nobody fetches what is told of this task any more. May be called twice."""
        self._keep(task)
        telling = self._all.pop(task, None)
        if telling is not None:
            telling.end()

    def _drop_later(self, task: TaskId) -> None:
        self._alarms[task] = asyncio.get_running_loop().call_later(UNHEARD_S, self.drop, task)

    def _keep(self, task: TaskId) -> None:
        alarm = self._alarms.pop(task, None)
        if alarm is not None:
            alarm.cancel()


def _packed(value: object) -> bytes | None:
    """One message, or None for what is too much for one."""
    try:
        data = codec.pack(value)
    except codec.WireError:
        return None
    return None if len(data) > codec.MAX_VALUES and more_than(codec.MAX_VALUES, data) else data
