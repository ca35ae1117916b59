"""Whether a task's input is what its plan needs. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from swarm.config.references import INPUT
from swarm.plan.plan import MissingInput, Plan, PlannedStep, Ref, resolve


def unusable(plan: Plan, given: Mapping[str, Any]) -> str | None:
    """What is wrong with a task's input: a key that a step needs is missing, a value cannot be sent or read."""
    try:
        msgspec.msgpack.encode(given)
        for step in plan.readers():
            for name, value in resolve(step, given, {need: {} for need in step.needs}).items():
                if problem := _no_json(value):
                    return f"input {name!r} of step {step.name!r} is no JSON value: {problem}; give it as text"
                if _reads(step, name) and _says_nothing(value):
                    shown = json.dumps(value)
                    return f"step {step.name!r} has nothing to read: its input {name!r} is {shown}; give it a text"
    except MissingInput as e:
        return str(e)
    except (TypeError, ValueError, OverflowError, RecursionError) as e:
        return f"the input cannot be sent to a host: {e}"
    return None


def _reads(step: PlannedStep, name: str) -> bool:
    """Whether this input is the text that the step is about, and comes from the task itself."""
    binding = step.inputs[name]
    of_task = isinstance(binding, Ref) and binding.source == INPUT
    return of_task and step.pack.kind != "tool" and name == step.pack.input[0]


def _says_nothing(value: Any) -> bool:
    return value is None or isinstance(value, bool) or (isinstance(value, str) and not value.strip())


def _no_json(value: Any) -> str | None:
    if isinstance(value, str | int | None):  # by far the most
        return None
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as e:
        return str(e)
    return None
