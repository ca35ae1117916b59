"""`swarm calibrate`: how far each tier's confidence can be trusted, as labelled items and earlier runs tell."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import json, structs
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from swarm import __version__
from swarm.cli.jsonl import lines
from swarm.dispatch import calibrate
from swarm.dispatch.explore import clipped, effective, weights
from swarm.dispatch.lasting import scope_of
from swarm.dispatch.learnt import Labels, Learnt, Seen, Source, beside, pooled, save
from swarm.dispatch.lessons import Gathered, gathered
from swarm.dispatch.reliability import Reliability, drawn, picture, reliability
from swarm.dispatch.rules import rules
from swarm.dispatch.ways import ways
from swarm.errors import CalibrationError, SwarmError
from swarm.models.store import default_home
from swarm.plan.plan import Plan
from swarm.runtime.labelling import Item, item_of, labelled
from swarm.runtime.launch import planned, runtime_of
from swarm.runtime.session import Session
from swarm.state.store import open_store

FEWEST = 30  # labels of a step below which its confidence is not worth much


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of `swarm calibrate`."""

    file: Path
    data: Path | None
    output: Path | None
    plot: Path | None
    paid: bool
    store: str | None
    progress: bool
    from_runs: bool = False


def calibrate_swarm(request: Request) -> None:
    """Write the calibration file and print what it says. Raises `SwarmError`; what was there is kept then."""
    plan = replace(planned(request.file), learnt=None)
    known = _known(plan, request)
    path = request.output or beside(request.file)
    learnt = Learnt(
        version="calibration/v1", swarm=plan.name, plan_hash=plan.hash, program=f"swarmlet {__version__}",
        made=datetime.now(UTC).isoformat(timespec="seconds"), data=known.data, runs=known.runs, models=known.models,
        steps=known.steps,
    )  # fmt: skip
    save(learnt, path)
    found = judged(plan, learnt)
    _show(plan, learnt, found, path)
    for name, runs in known.gathered.items():
        if runs.taught:
            Console().print(f"{name}: {said(runs)}", highlight=False, soft_wrap=True)
    if request.plot is not None:
        picture({f"{step}/{tier}": each for (step, tier), each in found.items()}, request.plot)


def judged(plan: Plan, learnt: Learnt) -> dict[tuple[str, str], Reliability]:
    """How far the confidence of each (step, way) can be trusted, by maps that had not seen the answers they judge."""
    found = {}
    for step in plan.steps:
        labels = learnt.steps[step.name]
        rows, counts = pooled(labels.rows, labels.taught)
        for way in ways(step):
            seen = [(row[way.name], n) for row, n in zip(rows, counts, strict=True) if way.name in row]
            if seen:
                found[step.name, way.name] = _reliability([s for s, _ in seen], [n for _, n in seen])
    return found


def _reliability(seen: Sequence[Seen], counts: Sequence[float]) -> Reliability:
    correct = [s.correct for s in seen]
    sure = calibrate.cross_fitted([s.signals for s in seen], correct, weights=counts)
    return reliability(sure, correct, weights=counts)


def said(runs: Gathered) -> str:
    """What a step's lessons are worth and whose word they are, as a sentence."""
    chances = [item.propensity for item in runs.taught]
    explored = sum(chance < 1.0 for chance in chances)
    left_out = f"; {runs.others:,} more were of other models or another teacher" if runs.others else ""
    capped = f"; {n:,} were so seldom looked at that they count too little" if (n := clipped(chances)) else ""
    return (
        f"of earlier runs {explored:,} answers that were kept and {len(chances) - explored:,} that escalated are worth "
        f"{effective(weights(chances)):,.0f} labels; right means there that tier {runs.teacher!r} said the same, which "
        f"may err{capped}{left_out}"
    )


# --- what there is to learn from --------------------------------------------------------------------------------


@dataclass(slots=True)
class _Known:
    """What will be in the file, and what was found in the store."""

    steps: dict[str, Labels]
    models: dict[str, str] = field(default_factory=dict)
    data: Source | None = None
    runs: Source | None = None
    gathered: dict[str, Gathered] = field(default_factory=dict)


def _known(plan: Plan, request: Request) -> _Known:
    if request.data is None and not request.from_runs:
        raise CalibrationError("there is nothing to learn from; give --data FILE, --from-runs, or both")
    known = _Known({step.name: Labels(answers_hash=step.answers_hash) for step in plan.steps})
    if request.data is not None:
        items, known.data = _items(plan, request.data)
        known.steps, known.models = _asked(plan, items, request)
    if request.from_runs:
        known.gathered, known.models = asyncio.run(_from_runs(plan, request, known.models))
        known.runs = _source(known.gathered)
        if not known.runs.items and request.data is None:
            raise CalibrationError(
                f"no run of {plan.name!r} as it is now has left labels in the store (--store names another); they come "
                "of local answers that the dearest remote tier was asked about too: let tasks escalate, set "
                "escalation.explore, or give --data"
            )
        for name, runs in known.gathered.items():
            known.steps[name] = structs.replace(known.steps[name], taught=runs.taught, teacher=runs.teacher)
    return known


async def _from_runs(
    plan: Plan, request: Request, models: dict[str, str]
) -> tuple[dict[str, Gathered], dict[str, str]]:
    store = await open_store(request.store or plan.runtime.store or default_home() / "store.db")
    try:
        return await gathered(store.records, scope_of(plan), plan, models)
    finally:
        await store.close()


def _source(found: Mapping[str, Gathered]) -> Source:
    content = json.encode({name: runs.taught for name, runs in found.items()}, order="deterministic")
    items = sum(len(runs.taught) for runs in found.values())
    return Source(name="runs", sha256=hashlib.sha256(content).hexdigest(), items=items)


def _items(plan: Plan, path: Path) -> tuple[list[Item], Source]:
    try:
        with path.open("rb") as file:
            read = list(lines(file))
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise CalibrationError(f"{path}: cannot be read ({e.strerror})") from e
    if broken := next((line for line in read if line.item is None), None):
        raise CalibrationError(f"{path}:{broken.number}: {broken.error}")
    items = [item_of(plan, line.item, f"{path}:{line.number}") for line in read if line.item is not None]
    if not items:
        raise CalibrationError(f"{path}: has no items; write one a line, with its input and labels")
    return items, Source(name=path.name, sha256=digest, items=len(items))


def _asked(plan: Plan, items: list[Item], request: Request) -> tuple[dict[str, Labels], dict[str, str]]:
    """What every tier says of the items now, with a bar on a terminal; and the models that said it."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not (request.progress and console.is_terminal)) as bar:
        row = bar.add_task("Answering", total=len(items))
        return asyncio.run(_answered(plan, items, request, lambda done: bar.update(row, completed=done)))


async def _answered(
    plan: Plan, items: list[Item], request: Request, tell: Any
) -> tuple[dict[str, Labels], dict[str, str]]:
    current = asyncio.current_task()
    assert current is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, current.cancel)
    store = str(request.store or default_home() / "store.db")
    plan = replace(plan, runtime=plan.runtime.model_copy(update={"store": store}))
    together = plan.runtime.kind == "in-process"
    session = None
    try:
        session = await Session.open(plan, runtime_of(plan), together=together)
        steps = await labelled((await session.current()).setting, items, tell, paid=request.paid)
        models = {tier: sha for ready in session.hosts().values() for tier, sha in ready.models.items()}
        return steps, models
    except asyncio.CancelledError:
        raise SwarmError("interrupted: no calibration was written") from None
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        if session is not None:
            await session.close()


def _show(plan: Plan, learnt: Learnt, found: dict[tuple[str, str], Reliability], path: Path) -> None:
    console = Console(width=None if Console().is_terminal else 140)
    table = Table("step", "tier", "labels", "right", "ECE", "Brier", "AUROC", "kept at 95% right", title=str(path))
    for (step, tier), seen in found.items():
        table.add_row(
            step, tier, _counted(seen), f"{seen.accuracy:.1%}", f"{seen.ece:.3f}", f"{seen.brier:.3f}",
            "–" if seen.auroc is None else f"{seen.auroc:.3f}", f"{seen.coverage_95:.0%}",
        )  # fmt: skip
    console.print(table)
    for (step, tier), seen in found.items():
        console.print(f"\n{step} / {tier}", highlight=False)
        console.print(drawn(seen), highlight=False, markup=False)
    for name, rule in rules(plan, learnt).items():
        labels = learnt.steps[name]
        n = len(labels.rows) + len(labels.taught)
        few = f"; {n} labels are few, {FEWEST} are a beginning" if n < FEWEST else ""
        skipped = f"; {labels.skipped} items had no label for it" if labels.skipped else ""
        console.print(f"{name}: {rule.why}{few}{skipped}", highlight=False, soft_wrap=True)


def _counted(seen: Reliability) -> str:
    return str(seen.n) if round(seen.worth) == seen.n else f"{seen.n} (worth {seen.worth:.0f})"
