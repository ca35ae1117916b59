"""The seams of this package: to wherever hosts run, and to wherever the dispatcher does."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from protocols.answers import Ask
from protocols.control import Health, HostSpec, Ready
from protocols.ids import HostId, RunId
from protocols.tasks import Result, Task
from swarm.bus.base import Link
from swarm.bus.bus import BusStatistics
from swarm.dispatch.setting import Publish
from swarm.observe.receipt import Receipt


class Runtime(Protocol):
    """Starts hosts. `start` may be called again for a host that has died."""

    async def start(self, spec: HostSpec) -> tuple[Link, Ready]:
        """A host with its models loaded and calibrated. Raises `LaunchError`, `ModelError`, `PackError`."""
        ...

    async def close(self) -> None:
        """End what this runtime itself has started, apart from the hosts (their links close those)."""
        ...


class Working(Protocol):
    """A launched swarm as `Swarm` drives it, in this process (`session`) or in one of its own (`detached`)."""

    @property
    def run(self) -> RunId:
        """The run that is worked on."""
        ...

    def expect(self, tasks: int) -> None: ...

    async def answer(self, task: Task, publish: Publish | None) -> Result: ...

    async def resume(self, run: RunId) -> list[Result]: ...

    async def retry(self, ask: Ask) -> Result: ...

    async def receipt(self) -> Receipt: ...

    def hosts(self) -> dict[HostId, Ready]: ...

    async def health(self) -> list[Health]: ...

    async def statistics(self) -> BusStatistics: ...

    async def stop_tasks(self) -> None: ...

    async def finish(self) -> None:
        """End the run; its receipt is final then."""
        ...

    async def close(self) -> None:
        """Let go: ends what this process has started, and nothing that was to outlive it."""
        ...


@runtime_checkable
class Ends(Protocol):
    """A launched swarm that outlives who uses it."""

    async def end(self) -> None:
        """End it for everybody."""
        ...
