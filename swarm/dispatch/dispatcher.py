"""The dispatcher: one coroutine a task, any number at once on one event loop."""

from __future__ import annotations

from typing import Any

import structlog

from protocols.tasks import Result, Task
from swarm.dispatch.again import Past
from swarm.dispatch.course import Course
from swarm.dispatch.holds import Holds
from swarm.dispatch.setting import Publish, Setting
from swarm.dispatch.watch import Watch

log: Any = structlog.get_logger(__name__)

__all__ = ["Dispatcher", "Publish", "Setting"]


class Dispatcher:
    """Runs tasks against one `Setting`."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._holds = Holds(setting.store, setting.run)
        self._watch = Watch(setting, self._holds, setting.lasting)
        self._log = log.bind(run=setting.run)  # once: to find out how to log costs more than a task's other events

    async def open(self) -> None:
        """Take up what earlier runs have left. To be called before the first task. Raises `StoreError`."""
        await self._watch.begin()
        if (recall := self._setting.extras.recall) is not None:
            await recall.open()

    async def run(self, task: Task, publish: Publish, past: Past | None = None) -> Result:
        """The task's one terminal state. Cancelling this coroutine ends it as `cancelled`. Raises `StoreError`.

        `past`: of a task that was accepted before and broken off.
        """
        if self._setting.purse is not None:
            self._setting.purse.begin()
        return await Course(self._setting, self._holds, self._watch, task, publish, self._log, past).run()

    async def close(self) -> None:
        """Let what goes on beside the tasks come to an end. To be called when no task runs any more, once or twice."""
        await self._watch.close()
        await self._setting.extras.close()
