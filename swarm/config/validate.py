"""From a tree to a typed spec: every problem found, and what is sound kept so that later checks can go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from swarm.config.part import SHAPES
from swarm.config.problems import Finding, KeyPath, did_you_mean, show
from swarm.config.tree import Tree

M = TypeVar("M", bound=BaseModel)
Prune = Callable[[KeyPath], KeyPath]

_EXPECTED = {
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "tuple_type": "a list",
    "list_type": "a list",
    "string_type": "text",
}


_SHAPE_WORDS = {"<text>": "text", "<list>": "a list", "<mapping>": "a mapping (key: value)"}


@dataclass(frozen=True, slots=True)
class Validated(Generic[M]):
    """`value` without its broken parts; `broken` says which were left out. `None` if nothing sound is left."""

    value: M | None
    findings: tuple[Finding, ...]
    broken: frozenset[KeyPath]


def validate(model: type[M], tree: Tree, placeholders: dict[str, Any], prune: Prune) -> Validated[M]:
    """Check `tree` against `model`.

    `prune` turns the place of an error into the part to leave out before the next look; a top-level key that is left
    out gets its value from `placeholders`.
    """
    data, flawed = tree.value, tree.flawed
    if not isinstance(data, dict):
        text = "the file is empty" if data is None else f"expected a mapping (key: value), got {show(data)}"
        return Validated(None, (Finding((), f"{text}; see configs/minimal.yaml"),), frozenset({()}))
    try:
        return Validated(model.model_validate(data), (), frozenset(flawed))
    except ValidationError as e:
        findings = tuple(f for f in _findings(e, data) if not _below(f.path, flawed))
        broken = flawed | {prune(_location(details)) for details in e.errors()}
    kept = placeholders | _without(data, (), broken)
    try:
        return Validated(model.model_validate(kept), findings, frozenset(broken))
    except ValidationError:
        return Validated(None, findings, frozenset({()}))


def _findings(error: ValidationError, data: Any) -> Iterator[Finding]:
    errors = error.errors()
    places = [_location(details) for details in errors]
    above = {place[:length] for place in places for length in range(len(place))}
    for details, place in zip(errors, places, strict=True):
        if details["type"] == "too_short" and place in above:
            continue  # it is only short of items that are reported themselves
        on_key = details["loc"][-1:] == ("[key]",) or details["type"] == "unknown_key"
        yield Finding(place, _say(details, data, place), on_key)


def _say(details: Any, data: Any, place: KeyPath) -> str:
    kind, context = details["type"], details.get("ctx", {})
    match kind:
        case "missing":
            return f"is missing; add {place[-1]}: …"
        case "literal_error":
            return f"expected {context['expected']}, got {show(details['input'])}{_near(details)}"
        case "too_short":
            return "must not be empty"
        case "union_tag_invalid":
            shapes = [words for shape, words in _SHAPE_WORDS.items() if shape in context["expected_tags"]]
            return f"expected {' or '.join(shapes)}, got {show(details['input'])}"
        case _ if kind in _EXPECTED:
            return f"expected {_EXPECTED[kind]}, got {show(_value_at(data, place))}"
        case _:
            return str(context.get("text") or details["msg"])


def _near(details: Any) -> str:
    value, words = details["input"], str(details["ctx"]["expected"]).replace(" or ", ", ").split(", ")
    meant = did_you_mean(value, [word.strip("'") for word in words]) if isinstance(value, str) else ""
    return meant if meant.startswith("; did") else ""


def _location(details: Any) -> KeyPath:
    return tuple(part for part in details["loc"] if part not in (*SHAPES, "[key]"))


def _value_at(data: Any, path: KeyPath) -> Any:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _below(path: KeyPath, places: frozenset[KeyPath]) -> bool:
    return any(path[:length] in places for length in range(1, len(path) + 1))


def _without(value: Any, path: KeyPath, broken: frozenset[KeyPath]) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: _without(v, (*path, k), broken) for k, v in value.items() if (*path, k) not in broken}
