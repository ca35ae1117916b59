"""What is told to a listener in another process: everything, once, in order, and nothing after the end."""

from __future__ import annotations

import asyncio

from protocols.events import Event, StepAsked, TaskAccepted, TaskFinished
from protocols.tasks import Result
from swarm.runtime.telling import Telling

ACCEPTED = TaskAccepted(task="t-1")
ASKED = [StepAsked(task="t-1", step=str(n), tier="code") for n in range(100)]
FINISHED = TaskFinished(task="t-1", result=Result(task="t-1", status="done"))


def test_events_that_come_together_are_fetched_together() -> None:
    """A fetch waits for the first event and gives all there are, but for the end, which is the answer."""

    async def fetched() -> list[Event]:
        telling = Telling()
        waiting = asyncio.ensure_future(telling.fetched())
        await asyncio.sleep(0)
        assert not waiting.done()
        for event in (ACCEPTED, ASKED[0], FINISHED):
            telling.tell(event)
        return await waiting

    assert asyncio.run(fetched()) == [ACCEPTED, ASKED[0]]


def test_a_fetch_that_waits_ends_with_the_task() -> None:
    """It gives nothing, and so does every later one."""

    async def fetched() -> list[list[Event]]:
        telling = Telling()
        waiting = asyncio.ensure_future(telling.fetched())
        await asyncio.sleep(0)
        telling.end()
        return [await waiting, await telling.fetched()]

    assert asyncio.run(fetched()) == [[], []]


def test_no_event_is_lost_between_the_last_fetch_and_the_end() -> None:
    """However tellings and fetches fall together, those that were fetched and the rest are all, in order."""

    async def heard(pauses: int) -> list[Event]:
        telling, seen = Telling(), []

        async def listen() -> None:
            while events := await telling.fetched():
                seen.extend(events)

        listening = asyncio.ensure_future(listen())
        for n, event in enumerate(ASKED):
            telling.tell(event)
            if n % 7 < pauses:
                await asyncio.sleep(0)
        rest = telling.take()
        telling.end()
        await listening
        return [*seen, *rest]

    for pauses in range(8):
        assert asyncio.run(heard(pauses)) == ASKED


def test_what_an_error_leaves_untold_can_still_be_fetched() -> None:
    """A task without an answer has no rest, so its listener gets everything first."""

    async def fetched() -> list[list[Event]]:
        telling = Telling()
        telling.tell(ACCEPTED)
        telling.end()
        return [await telling.fetched(), await telling.fetched()]

    assert asyncio.run(fetched()) == [[ACCEPTED], []]
