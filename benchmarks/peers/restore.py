"""A prefix of 1,000 tokens read from disk, against decoding it."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time

from peers.contestant import Ask
from peers.ours import generate_request
from peers.rounds import progress
from peers.setup import Setup
from swarm.engine.llama.process.process import LlamaProcess

PREFIX = 1000
LATER = 4


def restore(setup: Setup) -> None:
    """First request with the prefix, in an engine that has its folder and in one that has none.

    From both the time of a later request is taken off, which finds the prefix in memory: what remains is how long it
    took to have the prefix. An unrelated request comes first and pays for whatever an engine does once.
    """
    length = setup.size(PREFIX, 200)
    prompts = setup.cases.long_prefix(length)
    firsts: dict[str, list[float]] = {"decoded": [], "restored": []}
    laters: list[float] = []
    restored = 0
    with tempfile.TemporaryDirectory() as folder:
        with setup.engine(prefix_folder=folder) as engine, asyncio.Runner() as runner:
            for _ in range(LATER):
                runner.run(_timed(engine, next(prompts)))
        for number in range(setup.rounds):
            progress(f"restore: round {number + 1} of {setup.rounds}")
            for how, where in (("decoded", None), ("restored", folder)):
                with setup.engine(prefix_folder=where) as engine, asyncio.Runner() as runner:
                    runner.run(_timed(engine, setup.cases.story(2)))
                    before = engine.statistics().tokens_restored
                    firsts[how].append(runner.run(_timed(engine, next(prompts))))
                    laters += [runner.run(_timed(engine, next(prompts))) for _ in range(LATER)]
                    restored = max(restored, engine.statistics().tokens_restored - before)
    later = statistics.median(laters)
    _report(setup, length, {how: statistics.median(each) - later for how, each in firsts.items()}, later, restored)


def _report(setup: Setup, length: int, seconds: dict[str, float], later: float, restored: int) -> None:
    rows = [[how, f"{1000 * (s + later):.1f}", f"{1000 * s:.1f}"] for how, s in seconds.items()]
    if not restored:
        note = "NOTHING was restored: both rows decoded the prefix."
    elif seconds["restored"] <= 0:
        note = f"{restored} tokens were restored, in less time than can be told from noise; take more rounds."
    else:
        note = f"{restored} tokens were restored, {seconds['decoded'] / seconds['restored']:.1f}× faster than decoded."
    columns = ("the prefix is", "first request, ms", "less a later request, ms")
    setup.report.table(f"a prefix of {length} tokens", columns, rows, [note])


async def _timed(engine: LlamaProcess, ask: Ask) -> float:
    started = time.perf_counter()
    await engine.generate(generate_request(ask))
    return time.perf_counter() - started
