"""Recorded tiers: a whole swarm run on what was once said, through the real dispatcher, host and ledger."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from protocols.tasks import Result
from swarm.errors import ModelDamaged, SwarmFileError
from swarm.runtime.launch import launch, planned

SWARM = """\
schema: swarm/v1
name: recorded
models:
  small: {replay: said.jsonl, as: small}
  strong: {replay: said.jsonl}
specialists:
  mood:
    kind: classify
    labels: {happy: pleased, sad: not pleased}
    tiers: [small, strong]
steps: {mood: {specialist: mood, input: {text: "${input.text}"}}}
escalation: {accept_at: 0.7}
budget: {task: {usd: 0.01}, on_exhausted: degrade}
"""
Row = dict[str, Any]


def recording(n: int = 40, seed: int = 3) -> list[Row]:
    """A small tier that is right as often as it says it is, and a strong one that nearly always is."""
    draw = random.Random(seed)
    rows: list[Row] = []
    for i in range(n):
        truth, sure = draw.choice(["happy", "sad"]), round(draw.uniform(0.4, 1.0), 3)
        for tier, p, paid in (("small", sure, 0), ("strong", 0.95, draw.randrange(50, 400))):
            right = draw.random() < p
            label = truth if right else {"happy": "sad", "sad": "happy"}[truth]
            rows.append({"query": f"message {i}", "tier": tier, "output": {"label": label}, "confidence": p,
                         "correct": float(right), "micro_usd": paid, "ms": 1.0})  # fmt: skip
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, SWARM, recording())
    return tmp_path


def write(folder: Path, swarm: str, rows: Sequence[Row]) -> None:
    (folder / "swarm.yaml").write_text(swarm)
    (folder / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def played(folder: Path, texts: Sequence[str]) -> tuple[list[Result], Any]:
    with launch(folder / "swarm.yaml", runtime="in-process", store=":memory:") as swarm:
        results = list(swarm.map_sync([{"text": text} for text in texts]))
        return results, swarm.receipt()


def test_a_replayed_swarm_costs_and_answers_as_the_recording_says(folder: Path) -> None:
    """The real dispatcher keeps what is sure enough and pays for the rest, to the cent and to the answer."""
    rows = {(row["query"], row["tier"]): row for row in recording()}
    texts = [f"message {i}" for i in range(40)]
    results, receipt = played(folder, texts)
    kept = [rows[t, "small"] if rows[t, "small"]["confidence"] >= 0.7 else rows[t, "strong"] for t in texts]
    assert [r.output["mood"] for r in results] == [row["output"] for row in kept]
    assert [r.steps["mood"].tier for r in results] == [row["tier"] for row in kept]
    assert receipt.spent.micro_usd == sum(row["micro_usd"] for row in kept) > 0
    assert (receipt.overrun.micro_usd, receipt.held.micro_usd) == (0, 0)
    assert {row["tier"] for row in kept} == {"small", "strong"}
    assert receipt.baseline is None, "a recording has no list price to compare with"


def test_the_price_is_held_before_a_recorded_answer_is_given(folder: Path) -> None:
    """What the dearest row cost must fit the budget, as a paid tier's bound must; else the small answer is kept."""
    dearest = max(row["micro_usd"] for row in recording())
    limit = f"{{task: {{usd: {(dearest - 1) / 1e6:.6f}}}"
    write(folder, SWARM.replace("{task: {usd: 0.01}", limit), recording())
    results, receipt = played(folder, [f"message {i}" for i in range(40)])
    assert receipt.spent.micro_usd == 0
    assert {r.steps["mood"].tier for r in results} == {"small"}
    assert any("raise budget.task.usd" in (r.reason or "") for r in results)


def test_what_was_not_recorded_is_unavailable_and_named(folder: Path) -> None:
    """An input without a row names the file, the tier and the input, and the next tier is asked."""
    (result,), _ = played(folder, ["never said"])
    assert result.status == "failed"
    for why, tier in zip(result.why, ("small", "strong"), strict=False):
        assert why.reason == f"unavailable: said.jsonl: no row of tier {tier!r} for query 'never said'; record it"


def test_rows_may_be_named_by_an_id_and_meant_for_one_step(tmp_path: Path) -> None:
    """An input `id` is looked up before the text; a row of the step itself comes before one of all steps."""
    swarm = SWARM.replace("labels: {", "input: [text, id]\n    labels: {").replace(
        '{text: "${input.text}"}', '{text: "${input.text}", id: "${input.id}"}'
    )
    said = [("7", None, "sad"), ("7", "mood", "happy"), ("hello", None, "sad")]
    rows = [
        {"query": query, "output": {"label": label}, "confidence": 0.9} | ({"step": step} if step else {})
        for query, step, label in said
    ]
    write(tmp_path, swarm, rows)
    with launch(tmp_path / "swarm.yaml", runtime="in-process", store=":memory:") as running:
        outputs = [running.run_sync({"text": "hello", "id": id}).output["mood"] for id in (7, "8")]
    assert outputs == [{"label": "happy"}, {"label": "sad"}]


def test_a_recorded_output_is_held_to_the_schema(folder: Path) -> None:
    """What the pack would not let a model say is no answer here either."""
    write(folder, SWARM, [{"query": "a", "output": {"label": "furious"}, "confidence": 0.9}])
    (result,), _ = played(folder, ["a"])
    assert result.status == "failed"
    assert "does not satisfy the schema" in (result.reason or "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"query": 1}', "line 1: Expected `str`, got `int` - at `$.query`"),
        ('{"query": "a", "tier": "small", "micro_usd": -1}', "line 1: Expected `int` >= 0"),
        ('{"query": "a"}\n{"query": "a"}', "line 2: query 'a' has two rows of tier 'small'; keep one"),
        ('{"query": "a", "tier": "other"}', "has no row of tier 'small'; name the tier as its rows do"),
        ("\x00", "line 1: "),
    ],
)
def test_a_recording_that_cannot_be_used_is_a_problem_of_the_file(folder: Path, line: str, said: str) -> None:
    """`swarm check` says which line of which file, at the key that names it."""
    (folder / "said.jsonl").write_text(line + "\n")
    with pytest.raises(SwarmFileError) as caught:
        planned(folder / "swarm.yaml")
    assert "models.small.replay: " in caught.value.problems[0]
    assert said in caught.value.problems[0]


def test_another_recording_makes_another_plan(folder: Path) -> None:
    """What is recorded is part of what answers depend on."""
    before = planned(folder / "swarm.yaml")
    write(folder, SWARM, recording(seed=4))
    assert planned(folder / "swarm.yaml").hash != before.hash
    with pytest.raises(ModelDamaged, match="not the file that the swarm was loaded with"):
        launch(before, runtime="in-process", store=":memory:")
