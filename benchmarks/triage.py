"""Real messages through head, small and head → small: what each answers here, how well, and at what cost.

    python benchmarks/triage.py --data DIR [--messages 500] [--sets banking77 clinc150] [--model smollm2-135m-instruct]

DIR holds `banking77/` and `clinc150/`, each with train.jsonl.gz and dev.jsonl.gz (fields: text, label). A pack is made
from 10 training examples a class; the messages are the first of the dev split in a seeded order. A message that no
tier is sure of goes to a person; `all` counts the best local answer of every message, `answered` those kept local.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import swarm
from protocols.tasks import Result

PER_CLASS = 10
LADDERS = {"head only": ("head",), "small only": ("small",), "head → small": ("head", "small")}


@dataclass(frozen=True)
class Message:
    text: str
    label: str


@dataclass(frozen=True)
class Outcome:
    """One ladder on one set."""

    accuracy: float
    local: float
    accuracy_local: float
    messages_s: float
    tokens: int


def read(path: Path) -> list[Message]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [Message(row["text"], row["label"]) for row in map(json.loads, lines)]


def chosen(train: list[Message], seed: int) -> list[Message]:
    """`PER_CLASS` examples of each label."""
    by_label: dict[str, list[Message]] = defaultdict(list)
    for message in random.Random(seed).sample(train, len(train)):
        if len(by_label[message.label]) < PER_CLASS:
            by_label[message.label].append(message)
    return [message for group in by_label.values() for message in group]


def write_swarm(folder: Path, name: str, examples: list[Message], tiers: tuple[str, ...], model: str) -> Path:
    """A swarm of one classifier in `folder`."""
    labels = sorted({m.label for m in examples})
    with (folder / "examples.jsonl").open("w", encoding="utf-8") as out:
        for m in examples:
            out.write(json.dumps({"input": {"text": m.text}, "output": {"label": m.label}}) + "\n")
    spec = {
        "schema": "swarm/v1",
        "name": name,
        "models": {"head": "all-MiniLM-L6-v2", "small": model},
        "specialists": {
            "intent": {
                "kind": "classify",
                "instructions": "Name the label that says what the writer wants.",
                "labels": {label: label.replace("_", " ") for label in labels},
                "examples": "examples.jsonl",
                "tiers": [*tiers, "person"],
            }
        },
        "steps": {"intent": {"specialist": "intent", "input": {"text": "${input.text}"}}},
        "runtime": {"kind": "in-process", "cpus": 2, "max_in_flight": 32},
    }
    path = folder / "swarm.yaml"
    path.write_text(json.dumps(spec), encoding="utf-8")  # JSON is YAML
    return path


def best_local(result: Result) -> str | None:
    """The accepted label, else the one of the last local tier."""
    if "intent" in result.output:
        return str(result.output["intent"]["label"])
    options = [why.signals["options"] for why in result.why if why.signals.get("options")]
    return max(options[-1], key=options[-1].__getitem__) if options else None


async def measured(running: swarm.Swarm, messages: list[Message]) -> Outcome:
    started = time.perf_counter()
    results = [r async for r in running.map({"text": m.text} for m in messages)]
    seconds = time.perf_counter() - started
    right = [best_local(r) == m.label for r, m in zip(results, messages, strict=True)]
    kept = [ok for ok, r in zip(right, results, strict=True) if r.status == "done"]
    tokens = sum(r.cost.tokens for r in results)
    return Outcome(
        accuracy=sum(right) / len(right),
        local=len(kept) / len(right),
        accuracy_local=sum(kept) / max(1, len(kept)),
        messages_s=len(messages) / seconds,
        tokens=tokens,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--messages", type=int, default=500)
    parser.add_argument("--sets", nargs="+", default=["banking77", "clinc150"])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    if not args.data.is_dir():
        sys.exit(f"{args.data}: no such folder; --data names one with banking77/ and clinc150/")
    columns = f"{'accuracy':>8} {'local':>6} {'answered':>9} {'messages/s':>11} {'tokens':>9}"
    print(f"{'set':<10} {'ladder':<13} {columns}", flush=True)
    for name in args.sets:
        examples = chosen(read(args.data / name / "train.jsonl.gz"), args.seed)
        dev = read(args.data / name / "dev.jsonl.gz")
        messages = random.Random(args.seed).sample(dev, min(args.messages, len(dev)))
        for title, tiers in LADDERS.items():
            with tempfile.TemporaryDirectory() as folder:
                path = write_swarm(Path(folder), name, examples, tiers, args.model)
                with swarm.launch(path, store=":memory:") as running:
                    o = asyncio.run(measured(running, messages))
            row = f"{o.accuracy:>8.3f} {o.local:>6.2f} {o.accuracy_local:>9.3f} {o.messages_s:>11.1f} {o.tokens:>9,}"
            print(f"{name:<10} {title:<13} {row}", flush=True)


if __name__ == "__main__":
    main()
