"""The dispatcher: one coroutine a task, any number at once on one event loop."""

from __future__ import annotations

from protocols.tasks import Result, Task
from swarm.dispatch.course import Course
from swarm.dispatch.holds import Holds
from swarm.dispatch.setting import Publish, Setting

__all__ = ["Dispatcher", "Publish", "Setting"]


class Dispatcher:
    """Runs tasks against one `Setting`."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._holds = Holds(setting.store, setting.run)

    async def run(self, task: Task, publish: Publish) -> Result:
        """The task's one terminal state. Cancelling this coroutine ends it as `cancelled`. Raises `StoreError`."""
        return await Course(self._setting, self._holds, task, publish).run()
