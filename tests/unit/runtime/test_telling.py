"""What is told to a listener in another process: everything, once, in order, and nothing after the end."""

from __future__ import annotations

import asyncio

import pytest

from protocols import codec
from protocols.detached import Answered
from protocols.events import Event, StepAccepted, StepAsked, TaskAccepted, TaskFinished
from protocols.tasks import Result
from swarm.runtime import telling as module
from swarm.runtime.telling import Telling, Tellings

ACCEPTED = TaskAccepted(task="t-1")
ASKED = [StepAsked(task="t-1", step=str(n), tier="code") for n in range(100)]
RESULT = Result(task="t-1", status="done")
FINISHED = TaskFinished(task="t-1", result=RESULT)


def accepted(letters: int) -> StepAccepted:
    return StepAccepted(task="t-1", step="s", tier="code", confidence=1.0, output={"said": "x" * letters})


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
        rest = codec.unpack(telling.answered(RESULT), Answered).untold
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


def test_what_is_too_much_for_one_message_comes_in_several() -> None:
    """An answer goes without its events then, and these are fetched before the end; one that none can carry is left
    out."""
    sizes = (12_000_000, 33_600_000, 100, 100, 12_000_000, 9_000_000)
    told: list[Event] = [accepted(letters) for letters in sizes]

    async def fetched() -> list[list[Event]]:
        telling = Telling()
        for event in told:
            telling.tell(event)
        assert codec.unpack(telling.answered(RESULT), Answered) == Answered(result=RESULT)
        telling.end()
        messages = []
        while events := await telling.fetched():
            assert codec.unpack(codec.pack(events), list[Event]) == events
            messages.append(events)
        return messages

    messages = asyncio.run(fetched())
    assert len(messages) > 1
    assert [event for events in messages for event in events] == [told[0], *told[2:]]


def test_what_its_reader_would_take_for_too_many_values_is_not_sent_at_once() -> None:
    """The limit is on values, too, not on bytes alone."""
    many = StepAccepted(task="t-1", step="s", tier="code", confidence=1.0, output={"n": [0] * 2_500_000})

    async def fetched() -> list[int]:
        telling = Telling()
        for _ in range(2):
            telling.tell(many)
        telling.end()
        return [len(codec.unpack(codec.pack(await telling.fetched()), list[Event])) for _ in range(3)]

    assert asyncio.run(fetched()) == [1, 1, 0]


def test_what_nobody_fetches_is_kept_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a task that failed while its listener was gone, and of one that was announced and never came."""
    monkeypatch.setattr(module, "UNHEARD_S", 0.0)

    async def fetched() -> list[list[Event]]:
        tellings = Tellings()
        with pytest.raises(ValueError, match="failed"), tellings.of("t-1") as telling:
            telling.tell(ACCEPTED)
            raise ValueError("failed")
        tellings.expect("t-2")
        waiting = asyncio.ensure_future(tellings.fetched("t-2"))
        await asyncio.sleep(0.01)
        return [await tellings.fetched("t-1"), await waiting]

    assert asyncio.run(fetched()) == [[], []]


def test_a_task_that_lasts_is_told_of_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for what nobody fetches is not running while the task is."""
    monkeypatch.setattr(module, "UNHEARD_S", 0.0)

    async def fetched() -> list[Event]:
        tellings = Tellings()
        tellings.expect("t-1")
        with tellings.of("t-1") as telling:
            waiting = asyncio.ensure_future(tellings.fetched("t-1"))
            await asyncio.sleep(0.01)
            telling.tell(ACCEPTED)
            return await waiting

    assert asyncio.run(fetched()) == [ACCEPTED]
