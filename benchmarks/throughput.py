"""1,000 messages through the in-process and the Ray runtime: nothing lost, memory flat, messages a second.

What a durable store costs is the difference between `in-process` and `in memory`, which keeps nothing.

    python benchmarks/throughput.py [--messages 1000] [--swarm configs/triage.yaml] [--rounds 3]

The messages are the example inbox over and over, each with a number so that no two are the same. Without `--swarm`
they go through heads and code alone (intent, urgency, fields, route, reply); with it, through that file as it is. The
contestants alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import swarm

CONFIGS = Path(__file__).parents[1] / "configs"
WARM = 100  # messages before memory is first looked at

LIGHT = """\
schema: swarm/v1
name: light
models: {head: all-MiniLM-L6-v2}
specialists:
  intent: {pack: intent, tiers: [head]}
  urgency: {pack: urgency, tiers: [head]}
  fields: {pack: fields, tiers: [code]}
  route: {pack: route}
  reply: {pack: reply, tiers: [code]}
steps:
  intent: {specialist: intent, input: {text: "${input.text}"}}
  urgency: {specialist: urgency, input: {text: "${input.text}"}}
  fields: {specialist: fields, input: {text: "${input.text}"}}
  route: {specialist: route, input: {intent: "${intent.label}", urgency: "${urgency.label}", fields: "${fields}"}}
  reply: {specialist: reply, input: {text: "${input.text}", intent: "${intent.label}", fields: "${fields}"}}
runtime: {kind: in-process, cpus: 2}
"""


@dataclass(frozen=True)
class Pass:
    messages_s: float
    statuses: dict[str, int]
    grown_mib: float
    hosts: int


Contestant = Literal["in-process", "in memory", "ray"]


def one_pass(file: Path, contestant: Contestant, items: list[dict[str, str]], folder: Path) -> Pass:
    store = ":memory:" if contestant == "in memory" else str(folder / f"{time.monotonic_ns()}.db")
    with swarm.launch(file, runtime="ray" if contestant == "ray" else "in-process", store=store) as running:
        return asyncio.run(_pass(running, items))


async def _pass(running: swarm.Swarm, items: list[dict[str, str]]) -> Pass:
    statuses: Counter[str] = Counter()
    before = 0
    started = time.perf_counter()
    async for result in running.map(items):
        assert result.position == sum(statuses.values()), "a message was lost or came twice"
        statuses[result.status] += 1
        if sum(statuses.values()) == min(WARM, len(items) // 2):
            before = sum(h.rss_bytes for h in running.health())
    seconds = time.perf_counter() - started
    assert sum(statuses.values()) == len(items), "a message was lost"
    health = running.health()
    grown = sum(h.rss_bytes for h in health) - before
    return Pass(len(items) / seconds, dict(statuses), grown / 2**20, len(health))


def _word(n: int) -> str:
    """A made-up word for a number: no digits, which the patterns of fields would have to account for."""
    return "".join(("ba", "do", "ki", "lu", "me", "no", "ra", "su", "ti", "ve")[int(digit)] for digit in str(n))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--swarm", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-ray", action="store_true", help="only in this process, with and without a store")
    args = parser.parse_args()
    inbox = [json.loads(line) for line in (CONFIGS / "triage" / "inbox.jsonl").read_text("utf-8").splitlines()]
    items = [{"text": f"{item['text']} {_word(n)}"} for n, item in enumerate(islice(cycle(inbox), args.messages))]
    rates: dict[Contestant, list[float]] = {"in-process": [], "in memory": []}
    if not args.without_ray:
        rates["ray"] = []
    with tempfile.TemporaryDirectory() as folder:
        light = Path(folder) / "light.yaml"
        light.write_text(LIGHT)
        for _ in range(args.rounds):
            for contestant, seen in rates.items():
                done = one_pass(args.swarm or light, contestant, items, Path(folder))
                seen.append(done.messages_s)
                memory = f"memory of the hosts {done.grown_mib:+.0f} MiB after the first {WARM}"
                print(f"{contestant:<11} {done.messages_s:7.1f} messages/s, {done.statuses}, {memory}", flush=True)
    for contestant, seen in rates.items():
        print(f"{contestant:<11} {statistics.median(seen):7.1f} messages/s (median of {len(seen)})")


if __name__ == "__main__":
    main()
