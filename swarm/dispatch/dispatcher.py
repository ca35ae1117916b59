"""The dispatcher: one coroutine a task, any number at once on one event loop."""

from __future__ import annotations

from typing import Any

import structlog

from protocols.tasks import Result, Task
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
        self._watch = Watch(setting, self._holds)
        self._log = log.bind(run=setting.run)  # once: to find out how to log costs more than a task's other events

    async def run(self, task: Task, publish: Publish) -> Result:
        """The task's one terminal state. Cancelling this coroutine ends it as `cancelled`. Raises `StoreError`."""
        if self._setting.purse is not None:
            self._setting.purse.begin()
        return await Course(self._setting, self._holds, self._watch, task, publish, self._log).run()

    async def close(self) -> None:
        """Let what looks behind accepted answers come to an end. To be called when no task runs any more."""
        await self._watch.close()
