"""Which host answers what: a plan as host specs."""

from __future__ import annotations

import os
from collections.abc import Callable

from protocols.control import HostSpec
from protocols.ids import HostId
from swarm.bus.line import Serves
from swarm.plan.plan import Plan, Tier

LOCAL: HostId = "local"  # in the dispatcher's process: it has the keys, and waiting for a network needs no cores
WAITING = 4  # times a host's mailbox: what may wait for it in the dispatcher's process


def place(plan: Plan, unavailable: frozenset[str], *, together: bool) -> list[HostSpec]:
    """Specs of all hosts. Remote tiers go to the local host, everything else to each of `runtime.hosts` hosts.

    `together` puts all of it into one local host.
    """
    if together:
        return [_spec(plan, LOCAL, lambda t: t.kind != "person" and t.name not in unavailable, _threads(plan, 1))]
    workers = range(plan.runtime.hosts)
    specs = [
        _spec(plan, f"host-{i}", lambda t: t.kind not in ("person", "remote"), _threads(plan, len(workers)))
        for i in workers
    ]
    local = _spec(plan, LOCAL, lambda t: t.kind == "remote" and t.name not in unavailable, 1)
    return [spec for spec in (*specs, local) if spec.tiers]


def room(plan: Plan) -> int:
    """The most asks that may wait for one host: never fewer than the tasks of this plan can have under way at once."""
    return max(WAITING * plan.runtime.mailbox, plan.runtime.max_in_flight * len(plan.asked()))


def serves(spec: HostSpec) -> Serves:
    """The (specialist, tier) pairs that a host answers."""
    return frozenset((name, tier) for name, tiers in spec.tiers.items() for tier in tiers)


def _spec(plan: Plan, host: HostId, wanted: Callable[[Tier], bool], threads: int) -> HostSpec:
    ladders = {step.specialist: step.ladder for step in plan.asked()}
    tiers = {name: tuple(t.name for t in ladder if wanted(t)) for name, ladder in ladders.items()}
    tiers = {name: here for name, here in tiers.items() if here}
    models = {t.name: t.model for ladder in ladders.values() for t in ladder if wanted(t) and t.model is not None}
    adapters = {
        f"{name}/{t.name}": t.adapter for name, ladder in ladders.items() for t in ladder if wanted(t) and t.adapter
    }
    if any(model.kind == "small" and model.recording is None for model in models.values()):
        models |= {name: model for name, model in plan.models.items() if model.kind == "head"}  # to choose examples
    return HostSpec(
        host=host,
        packs={step.specialist: step.pack for step in plan.asked() if step.specialist in tiers},
        tiers=tiers,
        models=models,
        threads=threads,
        mailbox=plan.runtime.mailbox,
        registry=plan.registry,
        adapters=adapters,
    )


def _threads(plan: Plan, sharing: int) -> int:
    """Threads of each engine: what a host was granted. Hosts that share this machine share its cores, too."""
    if plan.runtime.address is not None:
        return plan.runtime.cpus
    return max(1, min(plan.runtime.cpus, cores() // sharing))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
