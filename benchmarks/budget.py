"""Can the budget be overrun? Crowds, duplicates, deaths, fan-out, outages, wrong bills: overspend must be 0 everywhere.

    python benchmarks/budget.py [--seeds 3] [--only crowd]

For each scenario and engine (memory, one SQLite file, a lease over that file): operations asked for and granted,
micro-dollars spent beyond the limit, micro-dollars billed by the provider but missing in the books, operations a second
and processor time for each granted one (hold, settle, journal, and the scenario's own part). Ends with 1 when anything
was overspent or hidden.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator

from spending import processes, scenarios
from spending.books import ENGINES, RUN, Outcome, attempt, stage

from protocols.money import Amount, Limit

PLAYED = {
    "crowd": scenarios.crowd,
    "deaths": scenarios.crowd_without_keys,
    "fan-out": scenarios.fan_out,
    "outage": scenarios.outage,
    "misreported": scenarios.misreported,
}
STEPS, TOGETHER = 20_000, 400


def outcomes(seed: int, only: str | None) -> Iterator[Outcome]:
    for name, scenario in PLAYED.items():
        if only in (None, name):
            for engine in ENGINES:
                yield asyncio.run(scenario(engine, seed))
    if only in (None, "programs"):
        for kind in ("sqlite", "leased"):
            yield processes.programs(kind, seed)


def row(of: Outcome) -> str:
    cpu = f"{1e6 * of.cpu_s / max(1, of.granted):7.1f}" if of.cpu_s else "      -"
    return (
        f"{of.scenario:34} {of.engine:7} {of.asked:7,} {of.granted:7,} {of.overspent:9} {of.hidden:7} "
        f"{of.asked / of.wall_s:9,.0f} {cpu}  {of.note}"
    )


async def speed(engine: str) -> str:
    """Hold, settle and journal, nothing else: processor time of all threads for each step."""
    async with stage(engine, Limit(micro_usd=10**12), TOGETHER) as s:  # type: ignore[arg-type]

        async def client(i: int) -> None:
            for j in range(STEPS // TOGETHER):
                await s.store.hold(f"a-{i}-{j}", RUN, f"t-{i}", Amount(micro_usd=20, tokens=100))
                await s.store.settle(attempt(f"a-{i}-{j}", f"t-{i}"), RUN, Amount(micro_usd=10, tokens=60))

        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(client(i) for i in range(TOGETHER)))
        await s.store.balance(f"run:{RUN}")  # everything is journalled
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return f"{engine:7} {1e6 * cpu / STEPS:6.1f} µs of CPU a step, {STEPS / wall:8,.0f} steps a second"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=[*PLAYED, "programs", "speed"])
    args = parser.parse_args(arguments)
    print(f"{'scenario':34} engine    asked granted overspent  hidden  asked/s  µs each")
    wrong = 0
    for seed in range(args.seeds):
        for outcome in outcomes(seed, args.only):
            wrong += outcome.overspent + outcome.hidden
            print(row(outcome), flush=True)
    if args.only in (None, "speed"):
        print(f"\nhold + settle + journal, {TOGETHER} at once:")
        for engine in ENGINES:
            print(asyncio.run(speed(engine)), flush=True)
    print(f"\noverspent or hidden: {wrong} micro-dollars")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
