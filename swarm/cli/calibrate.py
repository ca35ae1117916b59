"""`swarm calibrate`: ask every tier about labelled items, say how far its confidence can be trusted, keep it."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from swarm import __version__
from swarm.cli.jsonl import lines
from swarm.dispatch import calibrate
from swarm.dispatch.learnt import Labels, Learnt, Source, beside, save
from swarm.dispatch.reliability import Reliability, drawn, picture, reliability
from swarm.dispatch.rules import rules
from swarm.errors import CalibrationError, SwarmError
from swarm.models.store import default_home
from swarm.plan.plan import Plan
from swarm.runtime.labelling import Item, item_of, labelled
from swarm.runtime.launch import planned, runtime_of
from swarm.runtime.session import Session

FEWEST = 30  # labels of a step below which its confidence is not worth much


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of `swarm calibrate`."""

    file: Path
    data: Path
    output: Path | None
    plot: Path | None
    paid: bool
    store: Path | None
    progress: bool


def calibrate_swarm(request: Request) -> None:
    """Write the calibration file and print what it says. Raises `SwarmError`; what was there is kept then."""
    plan = replace(planned(request.file), learnt=None)
    items, source = _items(plan, request.data)
    console = Console(stderr=True)
    with Progress(console=console, disable=not (request.progress and console.is_terminal)) as bar:
        row = bar.add_task("Answering", total=len(items))
        steps, models = asyncio.run(_answered(plan, items, request, lambda done: bar.update(row, completed=done)))
    path = request.output or beside(request.file)
    learnt = Learnt(
        version="calibration/v1", swarm=plan.name, plan_hash=plan.hash, program=f"swarmlet {__version__}",
        made=datetime.now(UTC).isoformat(timespec="seconds"), data=source, models=models, steps=steps,
    )  # fmt: skip
    save(learnt, path)
    found = judged(plan, learnt)
    _show(plan, learnt, found, path)
    if request.plot is not None:
        picture({f"{step}/{tier}": each for (step, tier), each in found.items()}, request.plot)


def judged(plan: Plan, learnt: Learnt) -> dict[tuple[str, str], Reliability]:
    """How far each (step, tier)'s confidence can be trusted, by maps that had not seen the answers they judge."""
    found = {}
    for step in plan.steps:
        rows = learnt.steps[step.name].rows
        for tier in step.ladder:
            seen = [row[tier.name] for row in rows if tier.name in row]
            if seen:
                correct = [s.correct for s in seen]
                found[step.name, tier.name] = reliability(
                    calibrate.cross_fitted([s.signals for s in seen], correct), correct
                )
    return found


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
        steps = await labelled(session.setting, items, tell, paid=request.paid)
        models = {tier: sha for ready in session.hosts.ready.values() for tier, sha in ready.models.items()}
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
            step, tier, str(seen.n), f"{seen.accuracy:.1%}", f"{seen.ece:.3f}", f"{seen.brier:.3f}",
            "–" if seen.auroc is None else f"{seen.auroc:.3f}", f"{seen.coverage_95:.0%}",
        )  # fmt: skip
    console.print(table)
    for (step, tier), seen in found.items():
        console.print(f"\n{step} / {tier}", highlight=False)
        console.print(drawn(seen), highlight=False, markup=False)
    for name, rule in rules(plan, learnt).items():
        labels = learnt.steps[name]
        few = f"; {len(labels.rows)} labels are few, {FEWEST} are a beginning" if len(labels.rows) < FEWEST else ""
        skipped = f"; {labels.skipped} items had no label for it" if labels.skipped else ""
        console.print(f"{name}: {rule.why}{few}{skipped}", highlight=False, soft_wrap=True)
