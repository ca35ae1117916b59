"""What all tasks of a run share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from protocols.control import Calibration
from protocols.events import Event
from protocols.ids import RunId
from swarm.bus.bus import Bus
from swarm.dispatch.accounts import Estimator
from swarm.dispatch.extras import Extras
from swarm.dispatch.lasting import Lasting
from swarm.dispatch.purse import Purse
from swarm.dispatch.rules import Rule
from swarm.plan.plan import Plan
from swarm.state.base import Store

NO_EXTRAS = Extras()

Publish = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Setting:
    """Handed in, so that a test can hold each part."""

    run: RunId
    plan: Plan
    bus: Bus
    store: Store
    estimator: Estimator
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)  # "specialist/tier" -> map
    unavailable: Mapping[str, str] = field(default_factory=dict)  # tier -> why it cannot be asked
    clock: Callable[[], float] = time.monotonic
    rules: Mapping[str, Rule] = field(default_factory=dict)  # step -> what is kept; none: its `accept_at`
    purse: Purse | None = None  # None where nothing is weighed against its price
    extras: Extras = NO_EXTRAS
    lasting: Lasting | None = None  # None: what is found out in this run is forgotten with it
    loop: asyncio.AbstractEventLoop | None = None  # it works on; to ask for it each time would be a system call
