"""What a swarm finds out about itself while it runs and must not forget when the run is over: where it is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from swarm.dispatch.cache.scope import scope
from swarm.plan.plan import Plan
from swarm.state.records import Records

ALARM = "alarm"  # what an e-process has seen of a certificate: swarm.dispatch.alarms
LABEL = "label"  # what a dearer tier said about a step that local ones had answered: swarm.dispatch.lessons


@dataclass(frozen=True, slots=True)
class Lasting:
    """One swarm's of one tenant. `scope`: see `scope_of`; nothing is read or kept outside of it.

    `calibration`: sha256 of the file that the run's rules were made from, "" where there is none.
    `models`: tier -> sha256 of the weights that answer. `now`: seconds since the epoch.
    """

    records: Records
    scope: str
    calibration: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    now: Callable[[], float] = time.time


def scope_of(plan: Plan) -> str:
    """To whom the findings of this plan's runs belong: a tenant's swarm, by its name in the file."""
    return scope(plan.tenant, plan.name)
