"""What of JSON Schema (draft 2020-12) can be enforced while text is written, and how large a schema may be.

llguidance refuses some keywords and passes over others in silence, so every keyword is looked at here first. Which
ones it enforces rightly was found with JSON Schema's own test-suite (docs/structured.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from swarm.errors import SchemaUnsupported, quote

MOST_DEPTH = 16  # schemas inside schemas
MOST_NODES = 500  # schemas in all
MOST_BYTES = 65_536  # of JSON
MOST_VALUES = 1_000  # of enums in all
MOST_COUNT = 10_000  # in maxLength, maxItems and maxProperties
MOST_LEAST = 1_000  # in minLength and minItems
LONGEST_PATTERN = 1_000  # characters
MOST_HOPS = 32  # from schema to schema for one value
_DEEPEST_JSON = 64  # brackets inside brackets

_ONE = frozenset({"items", "additionalProperties"})  # hold a schema
_LISTS = frozenset({"anyOf", "allOf", "oneOf", "prefixItems"})
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_COUNTS = frozenset({"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"})
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
ENFORCED = (_ONE | _LISTS | _MAPS | _COUNTS | _BOUNDS) | {
    *("type", "enum", "const", "required", "pattern", "format", "$ref"),
}
ANNOTATIONS = frozenset(
    {
        *("$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated"),
        *("readOnly", "writeOnly", "contentEncoding", "contentMediaType", "contentSchema"),
    }
)

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """A schema inside a schema: the keys that lead to it, and how many schemas it is in."""

    schema: Schema
    path: tuple[str, ...] = ()
    depth: int = 1

    def inner(self) -> Iterator[Place]:
        """The schemas directly inside; `true` and `false` hold none."""
        for keyword, value in self.schema.items():
            found: Iterable[tuple[tuple[str, ...], Any]] = ()
            if keyword in _ONE:
                found = [((keyword,), value)]
            elif keyword in _LISTS and isinstance(value, list):
                found = [((keyword, str(i)), one) for i, one in enumerate(value)]
            elif keyword in _MAPS and isinstance(value, Mapping):
                found = [((keyword, name), one) for name, one in value.items()]
            for keys, one in found:
                if isinstance(one, Mapping):
                    yield Place(one, (*self.path, *keys), self.depth + 1)

    def everything(self) -> Iterator[Place]:
        """This schema and all inside it, the outer ones first."""
        yield self
        for place in self.inner():
            yield from place.everything()

    def refused(self, text: str, *keys: str) -> SchemaUnsupported:
        """The error that names this place, `keys` inside it, and what is wrong there."""
        where = ".".join((*self.path, *keys))
        return SchemaUnsupported(f"JSON Schema{' at ' + where if where else ''}: {text}")


def check_keywords(schema: Schema) -> None:
    """Raises `SchemaUnsupported`, naming place, limit and remedy, for what is too large or cannot be enforced."""
    root = Place(schema)
    _check_size(root)
    values = 0
    for n, place in enumerate(root.everything(), 1):
        if n > MOST_NODES:
            raise root.refused(f"more than {MOST_NODES} schemas inside; leave some out")
        if place.depth > MOST_DEPTH:
            raise place.refused(f"schemas nested more than {MOST_DEPTH} deep; make it flatter")
        for keyword, value in place.schema.items():
            if problem := _problem(place, keyword, value):
                raise place.refused(problem, keyword)
        values += _length(place.schema.get("enum"))
        if values > MOST_VALUES:
            raise place.refused(f"more than {MOST_VALUES:,} values of enums in all; leave some out", "enum")
    _check_references(root)


def _check_references(root: Place) -> None:
    """Every `$ref` leads somewhere, and not back to itself without going into a value."""
    done: set[int] = set()

    def follow(place: Place, above: frozenset[int]) -> None:
        here = id(place.schema)
        if here in above or len(above) >= MOST_HOPS:
            cause = "goes round" if here in above else f"goes through more than {MOST_HOPS} schemas"
            raise place.refused(f"a $ref {cause} for the same value; let it lead into a property or an item")
        if here in done:
            return
        for inner in _same_value(root, place):
            follow(inner, above | {here})
        done.add(here)

    for place in root.everything():
        follow(place, frozenset())


def _same_value(root: Place, place: Place) -> Iterator[Place]:
    """The schemas that the value of this one has to satisfy too, or may."""
    yield from (inner for inner in place.inner() if inner.path[len(place.path)] in ("anyOf", "allOf", "oneOf"))
    if "$ref" in place.schema:
        target = _target(root.schema, place.schema["$ref"])
        if target is None:
            raise place.refused(f"{quote(place.schema['$ref'])} leads to nothing; refer to '#/$defs/…'", "$ref")
        if isinstance(target, Mapping):
            yield Place(target, place.path, place.depth)


def _target(root: Schema, reference: str) -> Any:
    """What a JSON pointer (RFC 6901) in a URI fragment leads to; `None` for nothing."""
    here: Any = root
    for part in unquote(reference).removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(here, list):
            here = here[int(name)] if name.isdecimal() and int(name) < len(here) else None
        else:
            here = here.get(name) if isinstance(here, Mapping) else None
    return here


def _check_size(root: Place) -> None:
    if _depth(root.schema) > _DEEPEST_JSON:
        raise root.refused(f"brackets nested more than {_DEEPEST_JSON} deep; make it flatter")
    try:
        size = len(json.dumps(root.schema, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise root.refused(f"not plain JSON ({error}); write it with JSON types only") from None
    if size > MOST_BYTES:
        raise root.refused(f"{size:,} bytes: the limit is {MOST_BYTES:,}; make it shorter")


def _depth(value: Any) -> int:
    """Brackets inside brackets; counting ends when there are too many."""
    level, depth = [value], 0
    while level and depth <= _DEEPEST_JSON:
        level = [inner for outer in level for inner in _items(outer)]
        depth += 1
    return depth


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list) else ()


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else 0


def _problem(place: Place, keyword: str, value: Any) -> str | None:
    """Why this keyword cannot be enforced here, with the remedy."""
    if keyword in ANNOTATIONS:
        inside = keyword == "$id" and place.depth > 1
        return "an inner schema with a name of its own; refer to it as '#/$defs/…'" if inside else None
    if keyword not in ENFORCED:
        return f"{quote(keyword)} cannot be enforced while decoding; leave it out or check it after decoding"
    if keyword == "$ref" and not (isinstance(value, str) and (value == "#" or value.startswith("#/"))):
        return f"{quote(str(value))} leads out of the schema; refer to '#/$defs/…'"
    if keyword == "items" and isinstance(value, list):
        return "a list of schemas; say prefixItems"
    most = MOST_LEAST if keyword.startswith("min") else MOST_COUNT
    if keyword in _COUNTS and not (type(value) is int and 0 <= value <= most):
        return f"{value} is not a whole number up to {most:,}; change it or leave it out"
    if keyword == "minProperties" and value > _length(place.schema.get("required")):
        return "more than are required, and a name may be repeated; require them by name"
    if keyword == "multipleOf" and not (isinstance(value, int) and value > 0):
        return f"{value} is not a positive whole number; use another unit or check it after decoding"
    if keyword in _BOUNDS and (isinstance(value, bool) or not isinstance(value, int | float)):
        return "a bound is a number; write it as draft 2020-12 does"
    patterns = value if keyword == "patternProperties" and isinstance(value, Mapping) else (value,)
    if keyword in ("pattern", "patternProperties") and any(len(str(pattern)) > LONGEST_PATTERN for pattern in patterns):
        return f"a pattern of more than {LONGEST_PATTERN:,} characters; shorten it"
    return None
