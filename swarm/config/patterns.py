"""The regular expressions of output schemas, in an engine whose time grows with the text only (Rust's `regex`).

Python's `re` tries one way after the other, which can take time exponential in the text. This engine knows neither
look-around nor back-references in return. An expression is read nearly as ECMA-262 has it, as JSON Schema asks, and
not as `re` does: `\\d` and `\\w` are ASCII, and `$` is the very end. docs/packs.md says where it differs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from swarm.errors import quote

_SCHEMA = frozenset(  # keywords that hold a schema,
    {
        *("items", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else"),
        *("unevaluatedItems", "unevaluatedProperties", "contentSchema"),
    }
)
_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})  # a list of schemas,
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})  # schemas by name
_WORD_EDGE = re.compile(r"(?<!\\)(?:\\\\)*\\[<>]")  # an escaped < or >, which is the edge of a word in Rust's engine
_LARGEST = 1 << 20  # bytes of a compiled expression; the slowest that was found takes 75 µs for a character


class BadPattern(ValueError):
    """A regular expression that cannot be used; the message says why, and what to do."""


def pattern_problem(nodes: list[dict[str, Any]]) -> str | None:
    """What is wrong with the regular expressions of these schemas, and what to do; `None` if all can be used.

    nodes: the objects of one schema, each by itself: none is searched for others.
    """
    if all(any(key in node for node in nodes) for key in ("unevaluatedProperties", "patternProperties")):
        return "has unevaluatedProperties and patternProperties, which cannot be checked together; leave one out"
    for pattern in _patterns(nodes):
        try:
            _matcher(pattern)
        except BadPattern as e:
            return str(e)
    return None


def matches(pattern: str, text: str) -> bool:
    """Is there a match anywhere in `text`? Raises `BadPattern`."""
    try:
        return bool(_matcher(pattern)(text))
    except UnicodeEncodeError:  # half of a surrogate pair is no character; as in a decoder, one stands for it
        return bool(_matcher(pattern)(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")))


def options() -> dict[str, Any]:
    """How every validator of jsonschema_rs is made here: patterns in linear time, and nothing is ever fetched."""
    from jsonschema_rs import RegexOptions

    patterns = RegexOptions(size_limit=_LARGEST, dfa_size_limit=_LARGEST)
    return {"pattern_options": patterns, "validate_formats": False, "offline": True}


@lru_cache(maxsize=1024)
def _matcher(pattern: str) -> Any:
    from jsonschema_rs import Draft202012Validator

    if _WORD_EDGE.search(pattern):
        raise BadPattern(
            f"pattern {quote(pattern)} has \\< or \\>, which would be the edge of a word; write < or > plainly"
        )
    try:
        return Draft202012Validator({"pattern": pattern}, **options()).is_valid
    except ValueError:
        raise BadPattern(
            f"pattern {quote(pattern)} cannot be checked in linear time, or is no regular expression (ECMA-262); "
            "write it without look-around, back-references, \\Z and very large repeats"
        ) from None


def _patterns(nodes: list[dict[str, Any]]) -> Iterator[str]:
    for node in nodes:
        if isinstance(pattern := node.get("pattern"), str):
            yield pattern
        if isinstance(named := node.get("patternProperties"), dict):
            yield from named


def parts(schema: Any, seen: dict[int, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A schema and all that its keywords hold, but for mere values such as those of `enum` and `examples`.

    seen: what was found before, by `id`, which is left out and added to.
    """
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict) or id(node) in seen:
            continue
        seen[id(node)] = node
        yield node
        for key, value in node.items():
            if key in _SCHEMA:
                waiting.append(value)
            elif key in _SCHEMAS and isinstance(value, list):
                waiting += value
            elif key in _NAMED and isinstance(value, dict):
                waiting += value.values()
