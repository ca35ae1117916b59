"""The regular expressions of output schemas, in an engine whose time grows with the text only (Rust's `regex`).

Python's `re` tries one way after the other, which can take time exponential in the text. This engine knows neither
look-around nor back-references in return. An expression is read as JSON Schema has it (ECMA-262), not as `re` does:
`\\d` and `\\w` are ASCII, and `$` is the very end.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from swarm.errors import quote

_LARGEST = 1 << 20  # bytes of a compiled expression; the slowest that was found takes 75 µs for a character


def pattern_problem(schema: Any) -> str | None:
    """What is wrong with the regular expressions of a schema, and what to do; `None` if all can be used."""
    nodes = list(_nodes(schema))
    if all(any(key in node for node in nodes) for key in ("unevaluatedProperties", "patternProperties")):
        return "has unevaluatedProperties and patternProperties, which cannot be checked together; leave one out"
    for pattern in _patterns(nodes):
        try:
            _matcher(pattern)
        except ValueError:
            return (
                f"pattern {quote(pattern)} cannot be checked in linear time, or is no regular expression (ECMA-262); "
                "write it without look-around, back-references, \\Z and very large repeats"
            )
    return None


def matches(pattern: str, text: str) -> bool:
    """Is there a match anywhere in `text`? `ValueError` for a pattern in which `pattern_problem` finds a fault."""
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

    return Draft202012Validator({"pattern": pattern}, **options()).is_valid


def _patterns(nodes: list[dict[str, Any]]) -> Iterator[str]:
    for node in nodes:
        if isinstance(pattern := node.get("pattern"), str):
            yield pattern
        if isinstance(named := node.get("patternProperties"), dict):
            yield from named


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """All objects in a schema, those included that are mere values: a `$ref` may lead anywhere."""
    waiting = [schema]
    while waiting:
        match waiting.pop():
            case dict() as node:
                yield node
                waiting += node.values()
            case list() as items:
                waiting += items
