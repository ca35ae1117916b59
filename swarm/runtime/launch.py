"""From a swarm file to a running swarm."""

from __future__ import annotations

import dataclasses
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Literal

import structlog

from protocols.ids import RunId
from swarm.catalogue import Catalogue
from swarm.config import SwarmFile, read
from swarm.dispatch.learnt import beside
from swarm.errors import LaunchError
from swarm.models.registry import Registry
from swarm.observe.log import configure_if_nobody_has
from swarm.plan.build import build
from swarm.plan.plan import Plan
from swarm.runtime.base import Runtime, Working
from swarm.runtime.in_process import InProcessRuntime
from swarm.runtime.loop import Loop
from swarm.runtime.session import Session
from swarm.runtime.swarm import Swarm

log = structlog.get_logger(__name__)

RuntimeKind = Literal["ray", "in-process"]
MODELS = "models.yaml"  # a registry of the user's own, beside the swarm file


def planned(file: SwarmFile | str | Path) -> Plan:
    """The plan of a swarm file. Raises `SwarmFileError` with every problem in it."""
    from swarm.engine.llama.grammar.structured import check_schema

    read_in = file if isinstance(file, SwarmFile) else read(Path(file))
    own = read_in.folder / MODELS
    kinds = {model.name: model.entry.kind for model in Registry.shipped(*([own] if own.is_file() else []))}
    plan = build(read_in, Catalogue(), kinds, check_schema=check_schema)
    learnt = beside(read_in.path)
    return dataclasses.replace(
        plan,
        registry=str(own) if own.is_file() else None,
        learnt=str(learnt) if learnt.is_file() else None,
        path=str(read_in.path.absolute()),
    )


def launch(
    file: SwarmFile | str | Path | Plan,
    *,
    runtime: RuntimeKind | None = None,
    address: str | None = None,
    store: str | Path | None = None,
    detach: bool | str = False,
    note: Mapping[str, Any] | None = None,
) -> Swarm:
    """Start a swarm and return it ready to answer.

    `runtime`, `address` (which means Ray) and `store` override the file's. Without an address Ray is started on this
    machine and ended with the swarm. `store=":memory:"` keeps nothing. `detach`: leave the dispatcher in the cluster
    at `address`, under this name or the swarm's, so that it goes on without this program; see `connect`. `note`: plain
    values that the store keeps with the run. Raises `SwarmFileError`, `ModelNotFound`, `LaunchError` and the other
    errors of `swarm.errors`; nothing is left running then.
    """
    configure_if_nobody_has()
    plan = file if isinstance(file, Plan) else planned(file)
    runtime = runtime or ("ray" if address is not None else None)
    changes = {"kind": runtime, "address": address, "store": str(store) if store is not None else None}
    settings = plan.runtime.model_copy(update={k: v for k, v in changes.items() if v is not None})
    plan = dataclasses.replace(plan, runtime=settings)
    if detach == "":
        raise LaunchError("a detached swarm is found again by its name; give it one, or True for the swarm's own")
    if detach:
        from swarm.runtime.detached import start

        return _driven(plan, start(plan, plan.name if detach is True else detach, note or {}))
    together = plan.runtime.kind == "in-process"
    return _driven(plan, Session.open(plan, runtime_of(plan), together=together, note=note))


def connect(name: str, address: str) -> Swarm:
    """A swarm that was launched with `detach`, by its name. Closing it lets go of it; `Swarm.shut_down` ends it.

    Raises `LaunchError` where no swarm of that name runs in the cluster at `address`, and `SwarmFileError` when its
    file is not here any more; `end` does without it.
    """
    from swarm.runtime.detached import find

    configure_if_nobody_has()
    loop = Loop()
    try:
        session = loop.wait(find(name, address))
        try:
            plan = planned(session.about.file)
        except BaseException:
            loop.wait(session.close())
            raise
    except BaseException:
        loop.stop()
        raise
    if plan.hash != session.about.plan_hash:
        log.warning("swarm.file_changed", file=session.about.file, remedy="the running swarm keeps to what it was")
    return Swarm(plan, session, loop)


def end(name: str, address: str) -> RunId | None:
    """End a swarm that was launched with `detach`, and its hosts with it; the run that it was at.

    What it was doing is cancelled, its run can be resumed. None: it was still being launched, or could not be. Raises
    `LaunchError` where there is no swarm of that name.
    """
    from swarm.runtime import detached

    configure_if_nobody_has()
    loop = Loop()
    try:
        return loop.wait(detached.end(name, address))
    finally:
        loop.stop()


def _driven(plan: Plan, opening: Coroutine[Any, Any, Working]) -> Swarm:
    loop = Loop()
    try:
        session = loop.wait(opening)
    except BaseException:
        loop.stop()
        raise
    return Swarm(plan, session, loop)


def runtime_of(plan: Plan) -> Runtime:
    """What starts the hosts of this plan, not started yet."""
    if plan.runtime.kind == "in-process":
        return InProcessRuntime()
    from swarm.runtime.on_ray import RayRuntime

    settings = plan.runtime
    return RayRuntime(settings.address, settings.hosts, settings.cpus, settings.memory)
