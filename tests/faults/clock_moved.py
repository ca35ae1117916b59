"""A program whose wall clock is moved while holds and tasks wait for their times; what became of them as JSON.

    python clock_moved.py PLACE FOLDER SHIFT_S

To be started under libfaketime: it moves its own clock, by the file that libfaketime reads. PLACE is where its store
is. All times are measured on the monotonic clock, which stays as it is.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "state"))

from ledger_books import Books, attempt, opened, record

import swarm
from protocols.money import Amount, Limit

HOLD_S, DEADLINE_S, DEAD_AFTER_S = 2.0, 2, 1.5
SWARM = """\
schema: swarm/v1
name: moved
specialists:
  work: {kind: tool, tools: work.py, input: [seconds], output_schema: {type: object, required: [slept]}}
steps:
  work: {specialist: work, input: {seconds: "${input.seconds}"}}
budget: {task: {seconds: %d}}
"""
TOOLS = """\
import threading

def run(seconds):
    threading.Event().wait(seconds)  # libfaketime breaks time.sleep
    return {"slept": seconds}
"""


def move(shift_s: int) -> float:
    """By how much `time.time` has gone on beside the clock that stays."""
    wall, steady = time.time(), time.monotonic()
    file = Path(os.environ["FAKETIME_TIMESTAMP_FILE"])
    file.with_suffix(".new").write_text(f"{shift_s:+d}")
    file.with_suffix(".new").replace(file)  # in one go: other threads read it all the time
    return time.time() - wall - (time.monotonic() - steady)


def dies(place: str) -> None:
    """A program that is gone while one of its holds is open and sent."""
    if (child := os.fork()) == 0:
        asyncio.run(_die(place))
    os.waitpid(child, 0)


async def _die(place: str) -> None:
    store = await opened(place)
    await store.begin(record("r-1"), Limit(tokens=100))
    await store.accept("r-1", "t-1", Limit())
    await store.hold("dead", "r-1", "t-1", Amount(tokens=10))
    os._exit(0)


async def held(place: str, shift_s: int) -> dict[str, float]:
    """How long each hold was open, as another program sees it: before the clock is moved, after, and of the dead."""
    store = await opened(place, ttl_s=DEAD_AFTER_S)
    books = Books(place)
    began: dict[str, float] = {}

    async def hold(id: str, expires_s: float | None) -> None:
        await store.hold(id, "r-1", "t-1", Amount(tokens=10), sent=False, expires_s=expires_s)
        began[id] = time.monotonic()

    await hold("ours", None)
    began["dead"] = began["ours"]  # from here on somebody watches
    await hold("before", HOLD_S)
    await asyncio.sleep(HOLD_S / 4)
    told = {"moved": move(shift_s)}
    await hold("after", HOLD_S)
    while waiting := began.keys() - told.keys() - {"ours"}:
        await asyncio.sleep(0.02)
        ended = dict(books.query("SELECT id, state FROM holds WHERE state IN ('settled', 'void')"))
        told |= {id: time.monotonic() - began[id] for id in waiting & ended.keys()}
    await store.void(attempt("ours"), "r-1")
    books.close()
    await store.close()
    return told


async def answered(folder: Path, shift_s: int) -> list[tuple[float, str, float, str | None]]:
    """Of each task: how long its tool sleeps, how it ended, after how many seconds, and why."""
    (folder / "work.py").write_text(TOOLS)
    (folder / "moved.yaml").write_text(SWARM % DEADLINE_S)
    with swarm.launch(folder / "moved.yaml", runtime="in-process", store=folder / "swarm.db") as running:

        async def one(seconds: float) -> tuple[float, str, float, str | None]:
            began = time.monotonic()
            result = await running.run({"seconds": seconds})
            return seconds, result.status, time.monotonic() - began, result.reason

        await one(0.0)  # which begins the run and loads what is not loaded yet
        tasks = [asyncio.create_task(one(seconds)) for seconds in (0.1, 1.0, 3.0)]
        await asyncio.sleep(0.5)
        move(shift_s)
        tasks += [asyncio.create_task(one(seconds)) for seconds in (0.1, 1.0, 3.0)]
        return list(await asyncio.gather(*tasks))


def main(place: str, folder: Path, shift_s: int) -> None:
    dies(place)
    told: dict[str, Any] = {"holds": asyncio.run(held(place, shift_s))}
    move(0)
    told["tasks"] = asyncio.run(answered(folder, shift_s))
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
