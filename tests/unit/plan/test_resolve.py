"""A step's inputs are looked up in the task's input and in what other steps answered."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from protocols.packs import Pack
from swarm.config.references import parse_binding
from swarm.plan import MissingInput, PlannedStep, resolve


def step(**inputs: Any) -> PlannedStep:
    bound = {name: parse_binding(value) for name, value in inputs.items()}
    return PlannedStep("it", "s", Pack(name="p", kind="generate"), (), bound, frozenset(), 0.8)


TASK = {"text": "hi", "order": {"id": 7}, "none": None}
DONE = {"fields": {"amount": 1.5, "note": None, "tags": ["ä"], "inner": {"x": True}}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${input.text}", "hi"),
        ("${input.order.id}", 7),
        ("${input}", TASK),
        ("${input.none}", None),
        ("${fields}", DONE["fields"]),
        ("${fields.inner.x}", True),
        ("${fields.left_out}", None),
        ("${fields.note.deeper}", None),
        ("as it is", "as it is"),
        (12, 12),
        ("${input.text}, order ${input.order.id}: ${fields.amount}", "hi, order 7: 1.5"),
        ("[${fields.note}] ${fields.inner} ${fields.tags}", '[] {"x": true} ["ä"]'),
    ],
)
def test_an_input_has_this_value(value: object, expected: object) -> None:
    """References keep the type of what they find; in a text, null is nothing and structures are JSON."""
    assert resolve(step(x=value), TASK, DONE) == {"x": expected}


@pytest.mark.parametrize(
    "value", ["${input.txt}", "${input.order.name}", "${input.text.more}", "to ${input.who}", "${b.x}"]
)
def test_what_is_not_there_is_named(value: str) -> None:
    """A key that the task lacks, or a step without an output, is an error that names step and reference."""
    with pytest.raises(MissingInput) as caught:
        resolve(step(x=value), TASK, DONE)
    assert caught.value.step == "it"
    assert caught.value.ref in value


def test_the_error_survives_pickling() -> None:
    """It may cross a process boundary."""
    error = pickle.loads(pickle.dumps(MissingInput("it", "${input.x}")))
    assert (error.step, error.ref, str(error)) == ("it", "${input.x}", str(MissingInput("it", "${input.x}")))
