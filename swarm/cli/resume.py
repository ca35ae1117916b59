"""`swarm resume`: a run that was broken off, gone on with where it stood."""

from __future__ import annotations

import asyncio
import json as jsonlib
import sys
from pathlib import Path
from typing import Any

from protocols.records import RunRecord
from protocols.tasks import Result
from swarm.cli.run import Request, answer_all, sha256, show_receipt, shown
from swarm.errors import SwarmError
from swarm.runtime.launch import launch
from swarm.state.store import open_store


def resume_run(store: str, run: str, *, json: bool, progress: bool) -> int:
    """Finish it; the exit code. A run of `swarm run` also answers the lines of its input that it had not come to, and
    writes its output whole; any other run prints the results of all its tasks.
    """
    record = asyncio.run(_record(store, run))
    file, input, output = (record.about.get(key) for key in ("file", "input", "output"))
    if file is None:
        raise SwarmError(f"run {run!r} was made without a swarm file; `Swarm.resume` goes on with it")
    if input in (None, "-"):
        return _finish_only(file, store, run, json)
    if not Path(input).is_file():
        raise SwarmError(f"{input}: is not there any more; put back what run {run!r} was reading")
    if sha256(input) != record.about.get("sha256"):
        raise SwarmError(f"{input}: has changed since run {run!r} read it; put it back as it was")
    runtime, address = record.about.get("runtime"), record.about.get("address")
    return answer_all(Request(Path(file), input, output or "-", runtime, address, store, json, progress, resume=run))


def _finish_only(file: str, store: str, run: str, json: bool) -> int:
    with launch(file, store=store) as swarm:
        results = swarm.resume_sync(run)
        swarm.finish()
        receipt = swarm.receipt()
    for result in sorted(results, key=_place):
        print(jsonlib.dumps(shown(result), ensure_ascii=False))
    show_receipt(receipt, json, sys.stderr)
    return 0


async def _record(path: str, run: str) -> RunRecord:
    store = await open_store(path)
    try:
        record = await store.run(run)
    finally:
        await store.close()
    if record is None:
        raise SwarmError(f"run {run!r} is not in the store; `swarm runs` lists those that are")
    return record


def _place(result: Result) -> tuple[Any, str]:
    return (result.position if result.position is not None else float("inf")), result.task
