"""The dispatcher that a detached actor is: a `Session` whose callers are in other processes."""

from __future__ import annotations

import dataclasses

from protocols import codec
from protocols.answers import Ask
from protocols.detached import Answered, Launch, Launched
from protocols.ids import RunId, TaskId
from protocols.tasks import Task
from swarm.errors import LaunchError
from swarm.observe.log import configure_if_nobody_has
from swarm.runtime.session import Session
from swarm.runtime.telling import Telling


class DispatcherActor:
    """A `Session` behind bytes. Plain class; `detached.start` makes it an actor."""

    def __init__(self, launch: bytes) -> None:
        self._launch = codec.unpack(launch, Launch)
        self._session: Session | None = None
        self._told: dict[TaskId, Telling] = {}

    async def open(self) -> bytes:
        from swarm.runtime.launch import planned, runtime_of

        configure_if_nobody_has()
        told = self._launch
        plan = planned(told.file)
        if plan.hash != told.plan_hash:
            raise LaunchError(f"{told.file}: has changed while the swarm was launched; launch it again")
        places = {"store": told.store, "person_file": told.person_file}
        places = {key: place for key, place in places.items() if place is not None}
        settings = plan.runtime.model_copy(update={"kind": told.hosts_kind, "address": None, **places})
        plan = dataclasses.replace(plan, runtime=settings)
        together = told.hosts_kind == "in-process"
        self._session = await Session.open(plan, runtime_of(plan), together=together, note=told.note)
        return await self.about()

    async def about(self) -> bytes:
        session = self._opened
        told = self._launch
        return codec.pack(Launched(file=told.file, plan_hash=told.plan_hash, run=session.run, hosts=session.hosts()))

    async def answer(self, task: bytes) -> bytes:
        return codec.pack(await self._opened.answer(codec.unpack(task, Task), None))

    async def tell(self, task: bytes) -> bytes:
        """`answer` for who calls `events` meanwhile."""
        asked = codec.unpack(task, Task)
        telling = self._told[asked.id] = Telling()
        try:
            result = await self._opened.answer(asked, telling.tell)
            return codec.pack(Answered(result=result, untold=telling.take()))
        finally:
            del self._told[asked.id]
            telling.end()

    async def events(self, task: TaskId) -> bytes:
        """What has happened to the task since the last call, as soon as something has; nothing when it is over."""
        telling = self._told.get(task)
        return codec.pack([] if telling is None else await telling.fetched())

    async def resume(self, run: RunId) -> bytes:
        return codec.pack(await self._opened.resume(run))

    async def retry(self, ask: bytes) -> bytes:
        return codec.pack(await self._opened.retry(codec.unpack(ask, Ask)))

    async def expect(self, tasks: int) -> None:
        self._opened.expect(tasks)

    async def receipt(self) -> bytes:
        return codec.pack(await self._opened.receipt())

    async def health(self) -> bytes:
        return codec.pack(await self._opened.health())

    async def statistics(self) -> bytes:
        return codec.pack(await self._opened.statistics())

    async def stop_tasks(self) -> None:
        await self._opened.stop_tasks()

    async def finish(self) -> None:
        await self._opened.finish()

    async def close(self) -> None:
        await self._opened.close()

    @property
    def _opened(self) -> Session:
        if self._session is None:
            raise LaunchError(f"{self._launch.file}: is still being launched; connect again in a moment")
        return self._session
