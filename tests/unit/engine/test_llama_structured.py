from typing import Any

import pytest

from swarm.engine.llama.structured import check_regex, check_schema
from swarm.errors import SchemaUnsupported

OBJECT = {
    "type": "object",
    "properties": {"order": {"type": ["string", "null"], "pattern": "^[A-Z]{2}-[0-9]+$"}, "n": {"type": "integer"}},
    "required": ["order", "n"],
    "additionalProperties": False,
}


def test_the_schemas_of_packs_are_accepted() -> None:
    """Objects, enums, patterns, bounds and nulls can be enforced."""
    check_schema(OBJECT)
    check_schema({"enum": ["a", "b"]})
    check_schema({"type": "array", "items": {"type": "number", "minimum": 0}, "maxItems": 3})


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"type": "bogus"}, "bogus"),
        ({"$ref": "https://example.org/other.json"}, "example.org"),
        ({"const": {1, 2}}, "JSON"),
        ({"const": float("nan")}, "JSON"),
    ],
)
def test_what_cannot_be_enforced_is_named(schema: dict[str, Any], named: str) -> None:
    """A schema with a keyword that decoding cannot enforce is refused, and the error names the cause."""
    with pytest.raises(SchemaUnsupported, match=named):
        check_schema(schema)


def test_a_broken_regex_is_refused() -> None:
    """A regular expression that does not parse is refused before any decoding."""
    check_regex("[a-z]{3}")
    with pytest.raises(SchemaUnsupported, match="regex"):
        check_regex("[a-z]{3}(")
