"""What a step remembers is part of the plan."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_build import SWARM, build

from swarm.errors import SwarmFileError
from swarm.plan.plan import memory_key

FIRST = '{specialist: colour, input: {text: "${input.text}"}'
LAST = '{specialist: add, input: {a: "${second.order}", b: "${first.label}"}'
SUMS = "  sums: {kind: generate, input: [notes], instructions: Sum up., tiers: [small]}\nsteps:\n"


def remembering(step: str, memory: str) -> str:
    """The swarm with that memory of a step, and a specialist that can summarise."""
    return SWARM.replace(step, f"{step}, memory: {{{memory}}}").replace("steps:\n", SUMS)


def problem(folder: Path, text: str) -> str:
    with pytest.raises(SwarmFileError) as caught:
        build(folder, text)
    return "\n".join(caught.value.problems)


def test_key_comes_from_the_task(tmp_path: Path) -> None:
    """The key is looked up in each task; one that has none, or an empty one, remembers nothing."""
    step = build(tmp_path, remembering(FIRST, 'key: "of ${input.customer}"')).step("first")
    assert step.memory is not None and (step.memory.tokens, step.memory.read, step.memory.write) == (400, True, True)
    assert memory_key(step, {"text": "hi", "customer": 7}, {}) == "of 7"
    assert memory_key(step, {"text": "hi"}, {}) is None
    plain = build(tmp_path, remembering(FIRST, 'key: "${input.customer}"')).step("first")
    assert memory_key(plain, {"text": "hi", "customer": ""}, {}) is None
    assert memory_key(build(tmp_path).step("first"), {"customer": "ann"}, {}) is None


def test_key_may_come_from_a_step_that_is_read(tmp_path: Path) -> None:
    """What an earlier step has found can be the key."""
    step = build(tmp_path, remembering(LAST, 'key: "${second.order}"')).step("last")
    assert memory_key(step, {}, {"second": {"order": "A-1"}, "first": {"label": "red"}}) == "A-1"
    assert memory_key(step, {}, {"second": {"order": None}, "first": {"label": "red"}}) is None


def test_summariser_is_asked_and_no_step(tmp_path: Path) -> None:
    """A specialist that only summarises is served by the hosts, and stands in no graph."""
    without = build(tmp_path)
    made = build(tmp_path, remembering(FIRST, 'key: "${input.customer}", summarise: sums'))
    assert [step.name for step in made.steps] == [step.name for step in without.steps]
    (summariser,) = made.asked()[len(made.steps) :]
    assert (summariser.specialist, summariser.name) == ("sums", "first.memory")
    assert [tier.name for tier in summariser.ladder] == ["small"] and without.asked() == without.steps


@pytest.mark.parametrize("changed", ["tokens: 300", "read: false", "summarise: sums", "write: false"])
def test_memory_is_part_of_the_hash(tmp_path: Path, changed: str) -> None:
    """Answers depend on what is recalled, so another memory is another plan."""
    plans = [
        build(tmp_path),
        build(tmp_path, remembering(FIRST, 'key: "${input.customer}"')),
        build(tmp_path, remembering(FIRST, f'key: "${{input.customer}}", {changed}')),
    ]
    assert len({made.hash for made in plans}) == 3
    reads = [made.step("first").answers_hash for made in plans[:2]]
    assert reads[0] != reads[1], "labels of answers without notes say nothing of those with them"


@pytest.mark.parametrize(
    ("memory", "says"),
    [
        ('key: "${input.customer"', "is never closed"),
        ('key: "${second.order}"', "${second.order}: the step reads nothing of 'second'"),
        ('key: "${inputs.customer}"', "did you mean 'input'?"),
        ('key: "${input.customer}", read: false, write: false', "neither reads nor writes"),
        ('key: "${input.customer}", summarise: sum', "no specialist 'sum'; did you mean 'sums'?"),
        ('key: "${input.customer}", summarise: colour', "specialist 'colour' is no summariser"),
        ('key: "${input.customer}", summarise: sums, write: false', "this step writes none"),
        ('key: "${input.customer}"}, cache: {semantic: {error: 0.02}', "does not go with a semantic cache"),
        ("tokens: 5", "is missing; add key"),
        ('key: ""', "must not be empty"),
    ],
)
def test_wrong_memory_is_said(tmp_path: Path, memory: str, says: str) -> None:
    """Each mistake is one line at its place, with what to do."""
    said = problem(tmp_path, remembering(FIRST, memory))
    assert says in said and "steps.first.memory" in said


def test_field_that_a_step_does_not_put_out_is_no_key(tmp_path: Path) -> None:
    """A key is checked like an input."""
    assert "${second.name}" in problem(tmp_path, remembering(LAST, 'key: "${second.name}"'))


def test_pack_with_a_memory_of_its_own_takes_no_other(tmp_path: Path) -> None:
    """The notes would take the place of the pack's own input."""
    own = "  own: {kind: tool, tools: own.py, input: [memory, b], output_schema: {type: object}}\nsteps:\n"
    last = LAST.replace("specialist: add", "specialist: own").replace("a:", "memory:")
    text = SWARM.replace(LAST, f"{last}, memory: {{key: x}}").replace("steps:\n", own)
    (tmp_path / "own.py").write_text("def run(memory, b):\n    return {}\n")
    assert "has an input 'memory' of its own" in problem(tmp_path, text)
