"""A quick yes: does a value satisfy a schema, asked of jsonschema_rs in one call.

Only schemas are compiled whose check is short whatever the value, and only a yes is believed: whoever gets a no asks
`swarm.config.bounded`, which also finds the sentence. Nested `unevaluatedItems` take jsonschema_rs time exponential in
their depth, `multipleOf` is computed in another way, infinite numbers and tuples are seen in another way: what holds
these is left to the other. So is what could turn a wrong no into a wrong yes (`not`, `if`, `oneOf`, `contains`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from swarm.config import patterns

_MOST_PARTS = 500  # of a schema: keys, and values in lists
_MOST_DEPTH = 32  # of a schema: jsonschema_rs goes down on the machine's own stack, to 255 levels
_MOST_CHECKS = 1_000_000  # parts of the schema times parts of the value; at 0.15 µs, if each is held against each
_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_ONE = frozenset({"items", "additionalProperties", "propertyNames"})  # keywords that hold a schema,
_LIST = frozenset({"allOf", "anyOf", "prefixItems"})  # a list of schemas,
_NAMED = frozenset({"properties", "patternProperties"})  # schemas by name,
_OTHER = frozenset(  # none
    {
        *("type", "enum", "const", "required", "pattern", "minLength", "maxLength", "minProperties", "maxProperties"),
        *("minItems", "maxItems", "uniqueItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
        *("title", "description", "default", "examples", "format", "deprecated", "readOnly", "writeOnly", "$comment"),
    }
)
# Under these the value itself is looked at first: it may hold tuples, infinite numbers, or more than can be checked.
_LOOKING = frozenset(
    {
        *("items", "prefixItems", "uniqueItems", "minItems", "maxItems", "patternProperties", "propertyNames"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    }
)


class Quick:
    """A compiled schema. `most_values` is how many parts a value may have; `None`: it need not be looked at."""

    def __init__(self, is_valid: Callable[[Any], bool], most_values: int | None) -> None:
        self._is_valid = is_valid
        self._most_values = most_values

    def yes(self, value: Any) -> bool:
        """Does `value` satisfy the schema? Also false where it is not known."""
        if self._most_values is not None and not _is_plain(value, self._most_values):
            return False
        try:
            return self._is_valid(value)
        except (ValueError, TypeError, OverflowError, RecursionError):  # no JSON value, or nested too deep
            return False


def compiled(schema: dict[str, Any]) -> Quick | None:
    """The quick check for this schema; `None` where there is none."""
    from jsonschema_rs import Draft202012Validator

    schema = {key: value for key, value in schema.items() if key != "$schema" or value != _DIALECT}
    n_parts = _n_parts(schema)
    used = None if n_parts is None else _keywords(schema)
    if n_parts is None or used is None:
        return None
    try:
        is_valid = Draft202012Validator(schema, **patterns.options()).is_valid
    except (ValueError, RecursionError):
        return None
    return Quick(is_valid, _MOST_CHECKS // max(n_parts, 1) if used & _LOOKING else None)


def _n_parts(schema: Any) -> int | None:
    """How many parts a schema has; `None`: too many, nested too deep, or no JSON."""
    level, n_parts = [schema], 0
    for _ in range(_MOST_DEPTH):
        if not level:
            return n_parts
        n_parts += len(level)
        if n_parts > _MOST_PARTS or not all(map(_is_part, level)):
            return None
        level = [part for item in level for part in _within(item)]
    return None


def _keywords(schema: Any) -> set[str] | None:
    """The keywords of a schema and of those within it; `None` where one is left to the other check."""
    used, waiting = set(), [schema]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict):
            continue
        for key, value in node.items():
            if key in _ONE:
                waiting.append(value)
            elif key in _LIST:
                waiting += value
            elif key in _NAMED:
                waiting += value.values()
            elif key not in _OTHER:
                return None
            used.add("items" if _lets_many(key, value) else key)
    return used


def _lets_many(key: str, value: Any) -> bool:
    """May values come by this keyword in any number, or as a tuple?"""
    return (key == "additionalProperties" and isinstance(value, dict)) or (key == "type" and "array" in value)


def _is_plain(value: Any, most: int) -> bool:
    """Has it at most so many parts, all of them as JSON has them?"""
    seen = [value]
    for item in seen:  # which grows on the way
        if not _is_part(item):
            return False
        seen += _within(item)
        if len(seen) > most:
            return False
    return True


def _is_part(item: Any) -> bool:
    kind = type(item)
    return kind in (str, dict, list, int, bool, type(None)) or (kind is float and math.isfinite(item))


def _within(item: Any) -> Any:
    match item:
        case dict():
            return item.values()
        case list():
            return item
        case _:
            return ()
