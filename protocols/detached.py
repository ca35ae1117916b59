"""What is said to a dispatcher that runs in a process of its own, and what it says about itself."""

from __future__ import annotations

from typing import Any

import msgspec

from protocols.control import Ready
from protocols.events import Event
from protocols.ids import HostId, RunId
from protocols.tasks import Result


class Launch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The swarm that it is to run. Paths are absolute and of the machine that it is started on.

    `plan_hash`: what the caller made of `file`; the dispatcher reads it itself, and must come to the same.
    """

    file: str
    plan_hash: str
    store: str | None = None  # None: as the file says
    hosts_kind: str = "ray"
    person_file: str | None = None
    note: dict[str, Any] = {}


class Launched(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """It is up. `file` and `plan_hash` as it read them."""

    file: str
    plan_hash: str
    run: RunId
    hosts: dict[HostId, Ready] = {}


class Answered(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The end of a task that somebody listens to. `untold`: its events that were not fetched before, in order.

    `TaskFinished` is not among them: it would say `result` again. What is too much for one message with `result` is
    left to be fetched.
    """

    result: Result
    untold: list[Event] = []
