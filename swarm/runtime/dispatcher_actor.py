"""The dispatcher that a detached actor is: a `Session` whose callers are in other processes."""

from __future__ import annotations

import dataclasses

from protocols import codec
from protocols.answers import Ask
from protocols.detached import Launch, Launched
from protocols.ids import RunId, TaskId
from protocols.tasks import Task
from swarm.errors import LaunchError
from swarm.observe.log import configure_if_nobody_has
from swarm.runtime.session import Session
from swarm.runtime.telling import Tellings


class DispatcherActor:
    """A `Session` behind bytes. Plain class; `detached.start` makes it an actor."""

    def __init__(self, launch: bytes) -> None:
        self._launch = codec.unpack(launch, Launch)
        self._session: Session | None = None
        self._why_not = "is still being launched; connect again in a moment"
        self._told = Tellings()

    async def open(self) -> bytes:
        configure_if_nobody_has()
        try:
            self._session = await self._launched()
        except Exception as e:  # told again to whoever connects: who launched it may be gone, and ends nothing
            self._why_not = f"could not be launched ({type(e).__name__}: {e}); end this swarm, and launch it again"
            raise
        return await self.about()

    async def _launched(self) -> Session:
        from swarm.runtime.launch import planned, runtime_of

        told = self._launch
        plan = planned(told.file)
        if plan.hash != told.plan_hash:
            raise LaunchError(f"{told.file}: has changed while the swarm was launched; launch it again")
        places = {"store": told.store, "person_file": told.person_file}
        places = {key: place for key, place in places.items() if place is not None}
        settings = plan.runtime.model_copy(update={"kind": told.hosts_kind, "address": None, **places})
        plan = dataclasses.replace(plan, runtime=settings)
        together = told.hosts_kind == "in-process"
        return await Session.open(plan, runtime_of(plan), together=together, note=told.note)

    async def about(self) -> bytes:
        session = self._opened
        told = self._launch
        return codec.pack(Launched(file=told.file, plan_hash=told.plan_hash, run=session.run, hosts=session.hosts()))

    async def answer(self, task: bytes) -> bytes:
        return codec.pack(await self._opened.answer(codec.unpack(task, Task), None))

    async def listen(self, task: TaskId) -> None:
        """`tell` comes for this task, and `events` may overtake it: a large task waits for its bytes."""
        self._told.expect(task)

    async def tell(self, task: bytes) -> bytes:
        """`answer` for who calls `events` meanwhile."""
        asked = codec.unpack(task, Task)
        with self._told.of(asked.id) as telling:
            return telling.answered(await self._opened.answer(asked, telling.tell))

    async def events(self, task: TaskId) -> bytes:
        """What has happened to the task since the last call, as soon as something has; nothing when it is over."""
        return codec.pack(await self._told.fetched(task))

    async def unlisten(self, task: TaskId) -> None:
        """Nobody calls `events` for this task any more."""
        self._told.drop(task)

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
            raise LaunchError(f"{self._launch.file}: {self._why_not}")
        return self._session
