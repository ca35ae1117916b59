"""JSON Schema validation that ends: whoever asks says how many steps it may take.

A small schema can ask for endless work: references that fan out, a list whose items must all differ, a pattern.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, TypeVar

from swarm.config.patterns import matches

T = TypeVar("T")

_PRICE = {"$ref": 5, "$dynamicRef": 5}  # of looking where it leads, in steps; any other keyword is one


class TooMuch(Exception):
    """The steps were used up before the value was known to be right or wrong."""


class _Steps(threading.local):
    """What is left for the validation that this thread is at."""

    left = 0


_steps = _Steps()


@cache
def checker() -> Any:
    """jsonschema's validator for draft 2020-12, each of its keywords counted. To be used in `within`."""
    from jsonschema import Draft202012Validator, validators

    ours = {
        "uniqueItems": _unique_items,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
    }
    keywords = {**Draft202012Validator.VALIDATORS, **ours}
    extend: Any = validators.extend
    made = extend(
        Draft202012Validator, {name: _counted(check, _PRICE.get(name, 1)) for name, check in keywords.items()}
    )
    made.evolve = _evolve
    return made


def within(steps: int, search: Callable[[], T]) -> tuple[T, int]:
    """What `search` finds with validators of `checker`, and how many of its `steps` are left. Raises `TooMuch`."""
    before, _steps.left = _steps.left, steps
    try:
        return search(), _steps.left
    finally:
        _steps.left = before


def _counted(check: Callable[..., Any], price: int) -> Callable[..., Any]:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        _steps.left -= price
        if _steps.left < 0:
            raise TooMuch
        return check(validator, value, instance, schema)

    return counted


def _evolve(validator: Any, **changes: Any) -> Any:
    """The same for a part of the schema. jsonschema's own would go by `$schema` there, to one that counts nothing."""
    from attrs import fields

    same = {field.alias: getattr(validator, field.name) for field in fields(type(validator)) if field.init}
    return type(validator)(**{**same, **changes})


def _pattern(validator: Any, pattern: str, instance: Any, _: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if validator.is_type(instance, "string") and not matches(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, named: dict[str, Any], instance: Any, _: Any) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, schema in named.items():
        for key in _matching(instance, [pattern]):
            yield from validator.descend(instance[key], schema, path=key, schema_path=pattern)


def _additional_properties(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if not validator.is_type(instance, "object"):
        return
    known = schema.get("properties", {})
    unknown = {key: value for key, value in instance.items() if key not in known}
    for key in _matching(unknown, schema.get("patternProperties", ())):
        unknown.pop(key, None)
    if validator.is_type(wanted, "object"):
        for key, value in unknown.items():
            yield from validator.descend(value, wanted, path=key)
    elif not wanted and unknown:
        names = ", ".join(sorted(map(repr, unknown)))
        yield ValidationError(f"Additional properties are not allowed ({names} unexpected)")


def _matching(instance: Any, patterns: Iterable[str]) -> list[Any]:
    """The names in `instance` that match one of the patterns, in steps of one for each name and pattern."""
    found: dict[str, None] = {}
    for pattern in patterns:
        _steps.left -= len(instance)
        if _steps.left < 0:
            raise TooMuch
        found |= dict.fromkeys(key for key in instance if isinstance(key, str) and matches(pattern, key))
    return list(found)


def _unique_items(validator: Any, wanted: Any, instance: Any, _: Any) -> Iterator[Any]:
    """In linear time, as jsonschema's own is quadratic where items cannot be sorted."""
    from jsonschema import ValidationError

    if wanted and validator.is_type(instance, "array"):
        _steps.left -= len(instance)
        if len({_canonical(item) for item in instance}) < len(instance):
            yield ValidationError("has items that are not unique")


def _canonical(value: Any) -> str:
    """The same text for values that are equal in JSON, where 1 and 1.0 are."""
    return json.dumps(_whole(value), sort_keys=True, default=str)


def _whole(value: Any) -> Any:
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {str(key): _whole(item) for key, item in value.items()}
        case list():
            return [_whole(item) for item in value]
        case _:
            return value
