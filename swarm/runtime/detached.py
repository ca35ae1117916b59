"""A dispatcher in a process of its own, which outlives the program that started it: a detached Ray actor.

Its tasks go on when that program ends; `connect` finds it again by name. Keys of paid models come from the environment
of the Ray node that it runs on, which is the caller's own machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import ray
import structlog
from ray.exceptions import RayActorError, RayError, RayTaskError, TaskCancelledError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from protocols import codec
from protocols.answers import Ask
from protocols.control import Health, Ready
from protocols.detached import Answered, Launch, Launched
from protocols.events import Event, TaskFinished
from protocols.ids import HostId, RunId, TaskId
from protocols.tasks import Result, Task
from swarm.bus.bus import BusStatistics
from swarm.config import EnvRef
from swarm.dispatch.setting import Publish
from swarm.errors import LaunchError, SwarmError
from swarm.models.store import default_home
from swarm.observe.receipt import Receipt
from swarm.plan.plan import Plan
from swarm.runtime.dispatcher_actor import DispatcherActor
from swarm.runtime.on_ray import join, leave

log = structlog.get_logger(__name__)

NAMESPACE = "swarmlet"
REST_S = 10.0  # for the last events of a task without a result to come
CALLS_AT_ONCE = 10_000  # a task is one call, two with a listener; the session itself bounds how many are worked on


class DetachedSession:
    """A `DispatcherActor` from afar. `close` lets go of it, `end` ends it."""

    def __init__(self, name: str, actor: Any, about: Launched, owned: AsyncExitStack) -> None:
        self.name = name
        self.about = about
        self._actor = actor
        self._owned = owned
        self._run = about.run

    @property
    def run(self) -> RunId:
        return self._run

    def expect(self, tasks: int) -> None:
        self._actor.expect.remote(tasks)

    async def answer(self, task: Task, publish: Publish | None) -> Result:
        """Cancelling cancels the task over there."""
        asked = codec.pack(task)
        if publish is None:
            return codec.unpack(await self._call("answer", asked), Result)
        try:
            await self._call("listen", task.id)
            answered = await self._told(task.id, asked, publish)
        except BaseException:
            self._actor.unlisten.remote(task.id)  # what is still kept there is for nobody
            raise
        _pass_on([*answered.untold, TaskFinished(task=task.id, result=answered.result)], publish)
        return answered.result

    async def _told(self, task: TaskId, asked: bytes, publish: Publish) -> Answered:
        """The end of the task, once what was told on the way has been passed on."""
        answering = asyncio.ensure_future(self._call("tell", asked))
        listening = asyncio.ensure_future(self._listen(task, publish))
        try:
            await asyncio.wait({answering})
            failed = answering.cancelled() or answering.exception() is not None
            await asyncio.wait({listening}, timeout=REST_S if failed else None)  # it may have failed before it began
            return codec.unpack(answering.result(), Answered)
        finally:
            answering.cancel()
            listening.cancel()

    async def resume(self, run: RunId) -> list[Result]:
        results = codec.unpack(await self._call("resume", run), list[Result])
        self._run = run
        return results

    async def retry(self, ask: Ask) -> Result:
        return codec.unpack(await self._call("retry", codec.pack(ask)), Result)

    async def receipt(self) -> Receipt:
        return codec.unpack(await self._call("receipt"), Receipt)

    async def meet(self) -> None:
        """Ask what it is: `about` and `run`. Raises `LaunchError` where it is not up, or could not be launched."""
        self.about = codec.unpack(await self._call("about"), Launched)
        self._run = self.about.run

    def hosts(self) -> dict[HostId, Ready]:
        return dict(self.about.hosts)

    async def health(self) -> list[Health]:
        return codec.unpack(await self._call("health"), list[Health])

    async def statistics(self) -> BusStatistics:
        return codec.unpack(await self._call("statistics"), BusStatistics)

    async def stop_tasks(self) -> None:
        await self._call("stop_tasks")

    async def finish(self) -> None:
        await self._call("finish")

    async def close(self) -> None:
        await self._owned.aclose()

    async def end(self) -> None:
        """End the swarm over there, and its hosts with it, whatever it says to that; then let go."""
        try:
            await self._call("close")
        except Exception as e:
            log.warning("swarm.not_closed", swarm=self.name, cause=f"{type(e).__name__}: {e}")
        finally:
            with suppress(RayError):
                ray.kill(self._actor)
            await self.close()

    async def _listen(self, task: TaskId, publish: Publish) -> None:
        """Tell what happens to the task until it is over."""
        try:
            while events := codec.unpack(await self._call("events", task), list[Event]):
                _pass_on(events, publish)
        except SwarmError:
            pass  # it is gone, which the answer says too
        except Exception as e:
            log.warning("events.not_fetched", task_id=task, cause=f"{type(e).__name__}: {e}")

    async def _call(self, method: str, *args: object) -> Any:
        reference = getattr(self._actor, method).remote(*args)
        try:
            return await reference
        except asyncio.CancelledError:
            ray.cancel(reference)
            raise
        except RayTaskError as e:
            if isinstance(e.cause, TaskCancelledError):  # the tasks of the swarm were stopped
                raise asyncio.CancelledError from None
            raise e.cause from None  # the error as it was raised over there
        except RayActorError as e:
            remedy = f"`swarm resume {self._run or 'RUN'}` goes on with its run"
            raise SwarmError(f"swarm {self.name!r} is gone: {str(e).splitlines()[0].rstrip('.')}; {remedy}") from e


async def start(plan: Plan, name: str, note: Mapping[str, Any]) -> DetachedSession:
    """Start the dispatcher of `plan` on this machine, in the cluster that the plan names.

    Raises `LaunchError` without a cluster that outlives this process, or with a name that is taken.
    """
    settings = plan.runtime
    if settings.address is None or plan.path is None:
        raise LaunchError(
            "a detached swarm needs a cluster that outlives this process: start one with `ray start --head`, and give "
            "its address"
        )
    launch = Launch(
        file=plan.path, plan_hash=plan.hash, store=_whole(settings.store or default_home() / "store.db"),
        hosts_kind=settings.kind, person_file=_whole(settings.person_file), note=dict(note),
    )  # fmt: skip
    async with AsyncExitStack() as owned:
        await _join(settings.address, owned)
        actor = _create(name, launch)
        try:
            about = codec.unpack(await _plain(actor.open.remote()), Launched)
        except BaseException as e:
            ray.kill(actor)
            raise (e.cause if isinstance(e, RayTaskError) else e) from None
        return DetachedSession(name, actor, about, owned.pop_all())


async def find(name: str, address: str) -> DetachedSession:
    """The detached swarm of that name. Raises `LaunchError` as `reach` does, and where it could not be launched."""
    session = await reach(name, address)
    try:
        await session.meet()
    except BaseException:
        await session.close()
        raise
    return session


async def end(name: str, address: str) -> RunId | None:
    """End the detached swarm of that name; the run that it was at, None where it is not up. Raises as `reach` does."""
    session = await reach(name, address)
    try:
        with suppress(SwarmError):
            await session.meet()
    finally:
        await session.end()
    return session.run or None


async def reach(name: str, address: str) -> DetachedSession:
    """The detached swarm of that name, launched whole or not: `about` says nothing yet.

    Raises `LaunchError` where there is none, with the names of those that are.
    """
    async with AsyncExitStack() as owned:
        await _join(address, owned)
        try:
            actor = ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:
            known = sorted(a["name"] for a in ray.util.list_named_actors(True) if a["namespace"] == NAMESPACE)
            there = f"those there: {', '.join(map(repr, known))}" if known else "there is none"
            raise LaunchError(f"no detached swarm {name!r} in the cluster at {address}; {there}") from None
        return DetachedSession(name, actor, Launched(file="", plan_hash="", run=""), owned.pop_all())


def _pass_on(events: Iterable[Event], publish: Publish) -> None:
    """Whoever watches cannot harm what is watched."""
    for event in events:
        try:
            publish(event)
        except Exception as e:
            cause = f"{type(e).__name__}: {e}"
            log.warning("event.not_delivered", task_id=event.task, kind=type(event).__name__, cause=cause)


def _whole(place: str | Path | EnvRef | None) -> str | None:
    """A path from the root. What is no path is as it was; of what stands in the environment, nothing is said."""
    if place is None or isinstance(place, EnvRef):
        return None
    return place if isinstance(place, str) and "://" in place else str(Path(place).absolute())


async def _join(address: str, owned: AsyncExitStack) -> None:
    await asyncio.to_thread(join, address)
    owned.push_async_callback(asyncio.to_thread, leave)


def _create(name: str, launch: Launch) -> Any:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {
        "name": name, "namespace": NAMESPACE, "lifetime": "detached", "num_cpus": 0, "max_restarts": 0,
        "max_task_retries": 0, "max_concurrency": CALLS_AT_ONCE, "scheduling_strategy": here,
    }  # fmt: skip
    try:
        return ray.remote(DispatcherActor).options(**options).remote(codec.pack(launch))
    except ValueError as e:
        raise LaunchError(f"swarm {name!r} is running already; connect to it, or give another name") from e


async def _plain(reference: Any) -> Any:
    return await reference
