"""The triage swarm's intent step under a promise: what it keeps local, and how much of that is wrong.

    python benchmarks/target.py --data DIR [--labels 400] [--messages 300] [--sets clinc150] [--only head]

DIR holds `banking77/` and `clinc150/`, each with train.jsonl.gz and dev.jsonl.gz (fields: text, label). The step is
that of configs/triage.yaml with a pack made of each set: its labels, 10 or 100 training examples a class, and for
CLINC150 "oos" as `none_label`. The dev split is cut in two by a seed: *labels*, with which `swarm calibrate` is run,
half of them to learn from and half to show what holds; and *messages*, which nothing has seen when the step answers
them. What no local tier may keep goes to a person, so everything that is `done` was kept local. Where nothing is
certified no message is asked: everything escalates.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import tempfile
from collections import defaultdict
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from triage import Message, read

import swarm
from swarm.cli.calibrate import Request, calibrate_swarm
from swarm.dispatch.binomial import lower_bound, upper_bound
from swarm.dispatch.learnt import beside, load
from swarm.dispatch.rules import Rule, rules
from swarm.runtime.launch import planned

SETS = (("banking77", 10), ("banking77", 100), ("clinc150", 10))  # name, examples a class
LADDERS = {"head": ("head",), "small": ("small",), "head + small": ("head", "small")}
OUT_OF_SCOPE = "oos"
SEED = 11


@dataclass(frozen=True)
class Case:
    """One set, cut: examples for the pack, labelled messages, and those that it is tested on. None is in two."""

    name: str
    per_class: int
    examples: list[Message]
    labels: list[Message]
    messages: list[Message]


@dataclass(frozen=True)
class Outcome:
    """What became of the messages; those out of scope are counted again apart.

    `right`: share of right answers of the last tier, of the labels.
    """

    rule: Rule
    right: float
    n: int
    kept: int = 0
    wrong: int = 0
    outside: int = 0
    outside_kept: int = 0
    outside_wrong: int = 0


def case(data: Path, name: str, per_class: int, n_labels: int, n_messages: int) -> Case:
    """Cut a set by the seed. A dev message that stands among the examples too is left out."""
    dice = random.Random(SEED)
    train = read(data / name / "train.jsonl.gz")
    by_label: dict[str, list[Message]] = defaultdict(list)
    for message in dice.sample(train, len(train)):
        if len(by_label[message.label]) < per_class:
            by_label[message.label].append(message)
    examples = [message for group in by_label.values() for message in group]
    shown = {message.text for message in examples}
    dev = [message for message in read(data / name / "dev.jsonl.gz") if message.text not in shown]
    dev = dice.sample(dev, min(len(dev), n_labels + n_messages))
    return Case(name, per_class, examples, dev[:n_labels], dev[n_labels:])


def write_swarm(folder: Path, cut: Case, tiers: tuple[str, ...], model: str, error: float) -> Path:
    """The swarm of one step in `folder`, with its examples and its labelled items beside it."""
    labels = {m.label: m.label.replace("_", " ") for m in sorted(cut.examples, key=lambda m: m.label)}
    if OUT_OF_SCOPE in labels:
        labels[OUT_OF_SCOPE] = "none of these"
    pack = {
        "kind": "classify",
        "instructions": "Name the label that says what the writer wants.",
        "labels": labels,
        **({"none_label": OUT_OF_SCOPE} if OUT_OF_SCOPE in labels else {}),
        "examples": "examples.jsonl",
        "tiers": [*tiers, "person"],
    }
    spec = {
        "schema": "swarm/v1",
        "name": f"target-{cut.name}",
        "models": {"head": "all-MiniLM-L6-v2", "small": model},
        "specialists": {"intent": pack},
        "steps": {"intent": {"specialist": "intent", "input": {"text": "${input.text}"}}},
        "escalation": {"target": {"error": error, "confidence": 0.95}},
        "runtime": {"kind": "in-process", "cpus": 1, "max_in_flight": 32},
    }
    examples = [{"input": {"text": m.text}, "output": {"label": m.label}} for m in cut.examples]
    labelled = [{"input": {"text": m.text}, "label": {"label": m.label}} for m in cut.labels]
    for name, lines in (("examples.jsonl", examples), ("labels.jsonl", labelled)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    path = folder / "swarm.yaml"
    path.write_text(json.dumps(spec), encoding="utf-8")  # JSON is YAML
    return path


def measured(cut: Case, tiers: tuple[str, ...], model: str, error: float, folder: Path) -> Outcome:
    """Calibrate on the labels, as the command would; then answer the messages. Everything is written to `folder`."""
    path = write_swarm(folder, cut, tiers, model, error)
    with redirect_stdout(io.StringIO()):
        calibrate_swarm(
            Request(file=path, data=path.with_name("labels.jsonl"), output=None, plot=None, paid=False,
                    store=str(path.with_name("store.db")), progress=False)
        )  # fmt: skip
    learnt = load(beside(path))
    rule = rules(planned(path), learnt)["intent"]
    right = fmean(row[tiers[-1]].correct for row in learnt.steps["intent"].rows)
    if rule.accept_at is None:
        return Outcome(rule, right, len(cut.messages))
    with swarm.launch(path, store=":memory:") as running:
        results = list(running.map_sync([{"text": m.text} for m in cut.messages]))
    kept = [
        (m, result.output["intent"]["label"])
        for m, result in zip(cut.messages, results, strict=True)
        if result.status == "done"
    ]
    wrong = [m for m, said in kept if said != m.label]
    outside = [m for m, _ in kept if m.label == OUT_OF_SCOPE]
    return Outcome(
        rule, right, len(cut.messages), len(kept), len(wrong), sum(m.label == OUT_OF_SCOPE for m in cut.messages),
        len(outside), sum(m.label == OUT_OF_SCOPE for m in wrong),
    )  # fmt: skip


def told(o: Outcome) -> str:
    """The row's columns after the ladder, as Markdown."""
    certificate = o.rule.certificate
    assert certificate is not None
    if o.rule.accept_at is None:
        more = "no number would do" if certificate.missing is None else f"about {2 * certificate.missing:,} more needed"
        return f"{o.right:.0%} | nothing ({more}) | 0% | – | "
    low, high = lower_bound(o.wrong, o.kept, 0.025), upper_bound(o.wrong, o.kept, 0.025)
    outside = f"{o.outside_kept} of {o.outside}, {o.outside_wrong} wrong" if o.outside else ""
    share = f"{o.wrong} of {o.kept}: {o.wrong / max(1, o.kept):.1%} [{low:.1%}, {high:.1%}]"
    by = " + ".join(sorted(o.rule.kept or ()))
    return f"{o.right:.0%} | from {o.rule.accept_at:.3f}, {by} | {o.kept / o.n:.0%} | {share} | {outside}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=int, default=400)
    parser.add_argument("--messages", type=int, default=300)
    parser.add_argument("--error", type=float, default=0.05)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--sets", nargs="+", default=["banking77", "clinc150"])
    parser.add_argument("--only", choices=list(LADDERS), help="one ladder alone")
    parser.add_argument("--keep", type=Path, help="leave the swarms and their calibrations in this folder")
    args = parser.parse_args()
    if not (args.data / "banking77").is_dir():
        sys.exit(f"{args.data}: no banking77/ there; --data names a folder with banking77/ and clinc150/")
    print("| set | examples a class | ladder | right | kept | kept local | wrong of those | out of scope kept |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name, per_class in (each for each in SETS if each[0] in args.sets):
        cut = case(args.data, name, per_class, args.labels, args.messages)
        for title, tiers in LADDERS.items():
            if args.only not in (None, title):
                continue
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary) if args.keep is None else args.keep / f"{name}-{per_class}-{'-'.join(tiers)}"
                folder.mkdir(parents=True, exist_ok=True)
                row = told(measured(cut, tiers, args.model, args.error, folder))
            print(f"| {name} | {per_class} | {title} | {row} |", flush=True)


if __name__ == "__main__":
    main()
