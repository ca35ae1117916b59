"""`swarm calibrate`, `run` and `explain` on a real head, as a user would call them."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from swarm.dispatch.learnt import beside, load

SWARM = """
schema: swarm/v1
name: mood
models: {head: all-MiniLM-L6-v2}
specialists:
  mood:
    kind: classify
    instructions: Say how the writer feels.
    labels: {happy: pleased or grateful, unhappy: upset or disappointed}
    examples:
      happy: [Thank you so much!, The new card is lovely, That was quick, Great help as always]
      unhappy: [It broke after a day, Still no reply from you, I was charged twice, What a mess]
    tiers: [head, person]
steps: {mood: {specialist: mood, input: {text: "${input.text}"}}}
escalation: {accept_at: 0.7TARGET}
"""
HAPPY = ("Thanks for the quick help with", "I am delighted with", "You solved it wonderfully:", "Great service around")
UNHAPPY = ("I am very disappointed by", "Nobody cares about", "This is a terrible mess with", "I am angry about")
THINGS = ("my card", "the transfer", "the new app", "my account", "the refund")
ITEMS = [
    {"input": {"text": f"{opening} {thing}"}, "labels": {"mood": {"label": mood}}}
    for mood, openings in (("happy", HAPPY), ("unhappy", UNHAPPY))
    for opening, thing in product(openings, THINGS)
]


def swarm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "swarm.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def written(folder: Path, target: str = "") -> Path:
    (folder / "mood.yaml").write_text(SWARM.replace("TARGET", target), encoding="utf-8")
    (folder / "labels.jsonl").write_text("\n".join(map(json.dumps, ITEMS)), encoding="utf-8")
    return folder / "mood.yaml"


def calibrated(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return swarm(folder, "calibrate", "mood.yaml", "--data", "labels.jsonl", "--store", "store.db", *more)


def test_labelled_items_teach_and_the_next_run_says_why(tmp_path: Path) -> None:
    """The file holds every answer, the table its worth; `run` uses it and `explain` shows each decision."""
    file = written(tmp_path)
    done = calibrated(tmp_path, "--plot", "mood.png")
    assert done.returncode == 0, done.stderr
    assert "AUROC" in done.stdout and "mood / head" in done.stdout
    assert (tmp_path / "mood.png").read_bytes().startswith(b"\x89PNG")
    learnt = load(beside(file))
    assert (learnt.data.items, len(learnt.steps["mood"].rows), learnt.steps["mood"].skipped) == (40, 40, 0)
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": "I am delighted, thank you!"}), encoding="utf-8")
    ran = swarm(tmp_path, "run", "mood.yaml", "-i", "in.jsonl", "-o", "out.jsonl", "--store", "store.db", "--json")
    assert ran.returncode == 0, ran.stderr
    told = swarm(tmp_path, "explain", json.loads(ran.stdout)["run"], "--store", "store.db")
    assert "mood / head: accepted: confident enough" in told.stdout
    assert "accepted from 0.700" in told.stdout and "would have asked the next tier" in told.stdout


def test_too_few_labels_for_a_promise_send_everything_on(tmp_path: Path) -> None:
    """Forty labels certify no two percent: it is said with the number that is missing, and a person gets it all."""
    written(tmp_path, ", target: {error: 0.02}")
    done = calibrated(tmp_path)
    assert "not certified by 20 labels; about" in done.stdout
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": "I am delighted, thank you!"}), encoding="utf-8")
    ran = swarm(tmp_path, "run", "mood.yaml", "-i", "in.jsonl", "-o", "out.jsonl", "--store", "store.db")
    assert ran.returncode == 0, ran.stderr
    assert json.loads((tmp_path / "out.jsonl").read_text())["swarm"]["status"] == "person"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"input": {"text": "x"}, "labels": {"moood": {"label": "happy"}}}', "labels a step 'moood'"),
        ('{"input": {"text": "x"}, "labels": {"mood": "happy"}}', "is no mapping from output names to values"),
        ('{"text": "x"}', 'expected {"input": {...}, "labels": {"STEP": {...}}}'),
        ("nonsense", "not JSON"),
        ("", "has no items"),
    ],
)
def test_labels_that_cannot_be_used_are_named(tmp_path: Path, line: str, said: str) -> None:
    """The file, the line and the remedy; nothing is asked and nothing is written."""
    file = written(tmp_path)
    (tmp_path / "labels.jsonl").write_text(line, encoding="utf-8")
    done = calibrated(tmp_path)
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    assert "labels.jsonl" in done.stderr and not beside(file).exists()
