"""What a person gets: the item, what is known, what was tried and why that did not do."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from protocols.tasks import Result, StepResult, Why
from swarm.errors import SwarmError
from swarm.runtime.person import PersonFile

RESULT = Result(
    task="t-1",
    status="person",
    steps={
        "fields": StepResult(step="fields", status="accepted", output={"amount": "5 €"}, tier="code", confidence=1.0),
        "intent": StepResult(step="intent", status="person", tier="person"),
        "route": StepResult(step="route", status="skipped"),
    },
    why=(
        Why(step="fields", decision="accepted", tier="code", confidence=1.0),
        Why(step="intent", decision="escalate", tier="small", confidence=0.4, signals={"p": 0.4}, reason="not sure"),
        Why(step="intent", decision="person", tier="person", reason="not sure"),
    ),
)


def test_a_line_says_everything_that_is_known(tmp_path: Path) -> None:
    """Which steps wait, what the others put out, and each try with its signals; the folder is made."""
    file = PersonFile(tmp_path / "new" / "person.jsonl")
    file.hand_over({"text": "Größe?"}, RESULT)
    (line,) = file.path.read_text(encoding="utf-8").splitlines()
    told = json.loads(line)
    assert told == {
        "task": "t-1",
        "input": {"text": "Größe?"},
        "for": ["intent"],
        "known": {"fields": {"amount": "5 €"}},
        "tried": [
            {"step": "intent", "tier": "small", "confidence": 0.4, "reason": "not sure", "signals": {"p": 0.4}},
        ],
    }


def test_lines_are_whole_whoever_writes_at_the_same_time(tmp_path: Path) -> None:
    """Many tasks end at once; what was there before stays."""
    path = tmp_path / "person.jsonl"
    path.write_text('{"before": true}\n')
    file = PersonFile(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: file.hand_over({"n": i, "text": "x" * 20_000}, RESULT), range(100)))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"before": True}
    assert sorted(line["input"]["n"] for line in lines[1:]) == list(range(100))


def test_a_file_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    """It names the file, the task that nobody will see, and what to change."""
    (tmp_path / "plain").write_text("")
    file = PersonFile(tmp_path / "plain" / "person.jsonl")
    with pytest.raises(SwarmError) as raised:
        file.hand_over({"text": "hi"}, RESULT)
    told = str(raised.value)
    assert told.startswith(f"{file.path}: cannot be written (")
    assert "'t-1'" in told
    assert told.endswith("name another file in runtime.person_file")
