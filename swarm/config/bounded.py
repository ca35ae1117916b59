"""JSON Schema validation that ends: whoever asks says how many steps it may take.

A small schema can ask for endless work: references that fan out, a list whose items must all differ.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeVar

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

    keywords = {**Draft202012Validator.VALIDATORS, "uniqueItems": _unique_items}
    extend: Any = validators.extend
    return extend(
        Draft202012Validator, {name: _counted(check, _PRICE.get(name, 1)) for name, check in keywords.items()}
    )


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
