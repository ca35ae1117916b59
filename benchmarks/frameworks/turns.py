"""What all contestants share: they wait for their turn, do one load, and print what it cost. Only the standard library.

An order is one word on a line of standard input, `chain` or `tasks`; the reply is one line of JSON. CPU time is that of
the whole process, all its threads together.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable

STEPS = 10  # of a chain
CHAINS = 50  # one after the other in a turn
TASKS = 1000  # at once

Run = Callable[[int], Awaitable[object]]  # carries a number through one graph and returns what comes out of it


async def serve(chain: Run, tasks: Callable[[], Awaitable[list[object]]]) -> None:
    """Answer orders until the input ends.

    `chain` runs a chain of `STEPS` null steps; `tasks` carries the first `TASKS` numbers through a step each, at once.
    """
    loads = {"chain": lambda: _chains(chain), "tasks": lambda: _tasks(tasks)}
    for load in loads.values():
        await load()  # the first time warms caches
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        load = loads[line.strip()]
        gc.collect()
        cpu, wall = time.process_time(), time.perf_counter()
        units = await load()
        spent = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall, "units": units}
        print(json.dumps(spent), flush=True)


async def _chains(chain: Run) -> int:
    for n in range(CHAINS):
        assert await chain(n) == n, "a chain hands on what it was given"
    return CHAINS * STEPS


async def _tasks(tasks: Callable[[], Awaitable[list[object]]]) -> int:
    assert await tasks() == list(range(TASKS))
    return TASKS


async def gathered(task: Run) -> list[object]:
    """`TASKS` independent runs of a graph of one step."""
    return list(await asyncio.gather(*(task(n) for n in range(TASKS))))
