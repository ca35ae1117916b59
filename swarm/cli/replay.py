"""`swarm replay`: what happened in a run, decided on again by today's rules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from protocols.money import dollars
from protocols.records import Attempt, RunRecord
from swarm.dispatch.again import Difference, differing
from swarm.dispatch.learnt import load
from swarm.dispatch.rules import rules
from swarm.errors import SwarmError
from swarm.runtime.launch import planned
from swarm.state.store import open_store


def replay(store: str, run: str, file: Path | None, as_json: bool) -> Iterator[str]:
    """Lines to print. Raises `SwarmError` for a run that the store does not know, or a file with problems."""
    record, attempts = asyncio.run(_journal(store, run))
    path = file or record.about.get("file")
    if path is None:
        raise SwarmError(f"run {run!r} was made without a swarm file; name one")
    plan = planned(path)
    learnt = load(Path(plan.learnt)) if plan.learnt is not None else None
    found = list(differing(plan, attempts, rules(plan, learnt)))
    if as_json:
        yield from (json.dumps(asdict(each)) for each in found)
        return
    decided = sum(bool(a.event) for a in attempts)
    yield f"{run}: {decided:,} decisions made again by plan {plan.hash[:12]}, {len(found):,} steps would go another way"
    yield from map(_told, found)
    if found:
        yield f"spent after those points: {dollars(sum(each.saved for each in found))}"


def _told(each: Difference) -> str:
    sure = "" if each.confidence is None else f" at confidence {each.confidence:.3f}"
    return f"  {each.task} {each.step} / {each.tier}: {each.then} then, {each.now} now{sure}"


async def _journal(path: str, run: str) -> tuple[RunRecord, list[Attempt]]:
    store = await open_store(path)
    try:
        record = await store.run(run)
        if record is None:
            raise SwarmError(f"run {run!r} is not in the store; `swarm runs` lists those that are")
        return record, await store.attempts(run)
    finally:
        await store.close()
