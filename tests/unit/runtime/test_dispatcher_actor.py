"""A dispatcher whose callers are in other processes, without the processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from protocols import codec
from protocols.detached import Answered, Launch
from protocols.events import Event, StepAccepted, StepAsked, TaskAccepted
from protocols.tasks import Result, Task
from swarm.dispatch.setting import Publish
from swarm.errors import LaunchError, StoreError, SwarmFileError
from swarm.runtime.dispatcher_actor import DispatcherActor
from swarm.runtime.session import Session

TASK = Task(id="t-1", run="r-1", input={})
ACCEPTED = TaskAccepted(task="t-1")
ASKED = StepAsked(task="t-1", step="s", tier="code")
Work = Callable[[Publish], Awaitable[Result]]


class Works:
    """A session that does with every task what it is told."""

    def __init__(self, work: Work) -> None:
        self._work = work

    async def answer(self, task: Task, publish: Publish) -> Result:
        return await self._work(publish)


def actor(work: Work) -> DispatcherActor:
    made = DispatcherActor(codec.pack(Launch(file="a.yaml", plan_hash="h")))
    made._session = cast(Session, Works(work))
    return made


async def heard(dispatcher: DispatcherActor) -> list[Event]:
    """What a listener fetches until there is no more."""
    seen: list[Event] = []
    while events := codec.unpack(await dispatcher.events("t-1"), list[Event]):
        seen.extend(events)
    return seen


def test_events_may_be_asked_for_before_their_task_has_come() -> None:
    """A large task arrives after the small call that listens to it, which waits for it."""

    async def fetched() -> list[Event]:
        was_heard = asyncio.Event()

        async def works(publish: Publish) -> Result:
            publish(ACCEPTED)
            await was_heard.wait()
            return Result(task="t-1", status="done")

        dispatcher = actor(works)
        await dispatcher.listen("t-1")
        listening = asyncio.ensure_future(dispatcher.events("t-1"))
        await asyncio.sleep(0)
        working = asyncio.ensure_future(dispatcher.tell(codec.pack(TASK)))
        events = codec.unpack(await listening, list[Event])
        was_heard.set()
        assert codec.unpack(await working, Answered).untold == []
        return events

    assert asyncio.run(fetched()) == [ACCEPTED]


@pytest.mark.parametrize("error", [StoreError("the disk is full"), asyncio.CancelledError()])
def test_a_task_that_ends_by_an_error_tells_what_came_before(error: BaseException) -> None:
    """Its last events are fetched after it has ended, once."""

    async def works(publish: Publish) -> Result:
        publish(ACCEPTED)
        publish(ASKED)
        raise error

    async def fetched() -> list[list[Event]]:
        dispatcher = actor(works)
        await dispatcher.listen("t-1")
        with pytest.raises(type(error)):
            await dispatcher.tell(codec.pack(TASK))
        return [await heard(dispatcher), await heard(dispatcher)]

    assert asyncio.run(fetched()) == [[ACCEPTED, ASKED], []]


def test_nothing_is_kept_for_a_listener_that_has_gone_away() -> None:
    """Neither while its task goes on nor when that ends; a call that waits is let go."""

    async def fetched() -> list[list[Event]]:
        leaves = asyncio.Event()

        async def works(publish: Publish) -> Result:
            await leaves.wait()
            publish(ACCEPTED)
            raise StoreError("the disk is full")

        dispatcher = actor(works)
        await dispatcher.listen("t-1")
        listening = asyncio.ensure_future(heard(dispatcher))
        working = asyncio.ensure_future(dispatcher.tell(codec.pack(TASK)))
        await asyncio.sleep(0)
        await dispatcher.unlisten("t-1")
        leaves.set()
        with pytest.raises(StoreError):
            await working
        return [await listening, await heard(dispatcher)]

    assert asyncio.run(fetched()) == [[], []]


def test_a_large_result_is_given_though_its_events_do_not_fit_beside_it() -> None:
    """They are fetched instead; what is done and paid is not lost."""
    output: dict[str, Any] = {"said": "x" * 17_800_000}
    told = [ACCEPTED, StepAccepted(task="t-1", step="s", tier="code", confidence=1.0, output=output)]
    result = Result(task="t-1", status="done", output=output)

    async def works(publish: Publish) -> Result:
        for event in told:
            publish(event)
        return result

    async def fetched() -> tuple[Result, list[Event]]:
        dispatcher = actor(works)
        await dispatcher.listen("t-1")
        answered = codec.unpack(await dispatcher.tell(codec.pack(TASK)), Answered)
        return answered.result, [*await heard(dispatcher), *answered.untold]

    assert asyncio.run(fetched()) == (result, told)


def test_why_it_could_not_be_launched_is_told_to_whoever_comes_later(tmp_path: Path) -> None:
    """Not that it is still being launched, which would never end."""

    async def asked() -> None:
        dispatcher = DispatcherActor(codec.pack(Launch(file=str(tmp_path / "gone.yaml"), plan_hash="h")))
        with pytest.raises(LaunchError, match="still being launched"):
            await dispatcher.about()
        with pytest.raises(SwarmFileError):
            await dispatcher.open()
        with pytest.raises(LaunchError, match=r"could not be launched \(SwarmFileError: .*gone.yaml"):
            await dispatcher.about()

    asyncio.run(asked())
