import json
from typing import Any

import pytest
from llama_writing import request

from swarm.engine.llama.grammar.keywords import ANNOTATIONS, ENFORCED
from swarm.engine.llama.grammar.structured import byte_compiler, check_regex, check_schema
from swarm.errors import SchemaUnsupported

OBJECT = {
    "type": "object",
    "properties": {"order": {"type": ["string", "null"], "pattern": "^[A-Z]{2}-[0-9]+$"}, "n": {"type": "integer"}},
    "required": ["order", "n"],
    "additionalProperties": False,
}
TREE = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(depth - 1):
        schema = {"type": "array", "items": schema}
    return schema


def chain(n: int) -> dict[str, Any]:
    links = {f"s{i}": {"$ref": f"#/$defs/s{i + 1}"} for i in range(n)}
    return {"$ref": "#/$defs/s0", "$defs": {**links, f"s{n}": {"type": "null"}}}


def wide(n: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(n - 1)}}


def test_the_schemas_of_packs_are_accepted() -> None:
    """Objects, enums, patterns, bounds, nulls and references that come to an end can be enforced."""
    for schema in (OBJECT, TREE, {"enum": ["a", "b"]}, {"type": "array", "items": {"type": "number", "minimum": 0}}):
        check_schema({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "x", **schema})


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "array", "uniqueItems": True}, "at uniqueItems: 'uniqueItems' cannot be enforced"),
        ({"properties": {"a": {"items": {"not": {}}}}}, r"at properties\.a\.items\.not: 'not' cannot be enforced"),
        ({"anyOf": [{}, {"type": "string", "nullable": True}]}, r"at anyOf\.1\.nullable"),
        ({"additionalItems": False}, "additionalItems"),
        ({"items": [{}]}, "prefixItems"),
        ({"oneOf": [{"type": "number"}, {"minimum": 3}]}, "at oneOf: .* say anyOf"),
        ({"properties": {"a": {"type": "bogus"}}}, r"at properties\.a: Invalid type: bogus"),
        ({"$ref": "https://example.org/other.json"}, "example.org"),
        ({"$defs": {"a": {"$id": "x"}}}, r"\$defs\.a\.\$id"),
        ({"type": "number", "multipleOf": 0.01}, "0.01 is not a positive whole number"),
        ({"exclusiveMinimum": True}, "a bound is a number"),
        ({"minProperties": 2, "required": ["a"]}, "require them by name"),
        ({"type": "string", "pattern": "(?=a)"}, "look-around"),
        ({"type": "string", "format": "regex"}, "Unknown format: regex"),
        ({"minimum": 5, "maximum": 4, "type": "number"}, "greater than maximum"),
        ({"const": {1, 2}}, "JSON types only"),
        ({"const": float("nan")}, "JSON types only"),
    ],
)
def test_what_cannot_be_enforced_is_named(schema: dict[str, Any], named: str) -> None:
    """A schema that decoding cannot enforce is refused, and the error names the place, the cause and a remedy."""
    with pytest.raises(SchemaUnsupported, match=named):
        check_schema(schema)


@pytest.mark.parametrize(
    ("inside", "outside", "named"),
    [
        (nested(16), nested(17), "nested more than 16 deep"),
        (wide(500), wide(501), "more than 500 schemas"),
        (chain(20), chain(400), "more than 32 schemas"),
        ({"enum": list(range(1000))}, {"enum": list(range(1001))}, "more than 1,000 values"),
        ({"title": "x" * 60_000}, {"title": "x" * 66_000}, "66,013 bytes: the limit is 65,536"),
        ({"type": "string", "maxLength": 10_000}, {"type": "string", "maxLength": 10_001}, "up to 10,000"),
        ({"type": "string", "minLength": 1000}, {"type": "string", "minLength": 1001}, "up to 1,000"),
        ({"pattern": "a" * 1000}, {"pattern": "a" * 1001}, "more than 1,000 characters"),
        ({"const": json.loads("[" * 60 + "]" * 60)}, {"const": json.loads("[" * 70 + "]" * 70)}, "more than 64 deep"),
    ],
)
def test_a_schema_has_limits(inside: dict[str, Any], outside: dict[str, Any], named: str) -> None:
    """At a limit a schema is accepted; beyond it the error names the limit."""
    check_schema(inside)
    with pytest.raises(SchemaUnsupported, match=named):
        check_schema(outside)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"$ref": "#"}, "goes round"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "goes round"),
        ({"items": {"anyOf": [{"type": "null"}, {"$ref": "#/items"}]}}, "at items.* goes round"),
        ({"type": "object", "properties": {"again": {"$ref": "#"}}, "required": ["again"]}, "no JSON was found"),
        ({"$ref": "#/$defs/none"}, r"at \$ref: '#/\$defs/none' leads to nothing"),
    ],
)
def test_references_without_end_are_refused(schema: dict[str, Any], named: str) -> None:
    """References that go round for ever are found when a schema is checked, not while text is written."""
    with pytest.raises(SchemaUnsupported, match=named):
        check_schema(schema)


def test_no_keyword_is_passed_over() -> None:
    """A keyword is either enforced, an annotation, or refused."""
    assert not ENFORCED & ANNOTATIONS
    for keyword in ("dependencies", "if", "contains", "unevaluatedItems", "$dynamicRef", "$anchor", "x-own", "tyqe"):
        with pytest.raises(SchemaUnsupported, match=f"at {keyword.replace('$', chr(92) + '$')}"):
            check_schema({keyword: {}})


def test_a_draft_named_by_the_schema_changes_nothing() -> None:
    """A schema means what it means in draft 2020-12, whatever draft it names: siblings of $ref count."""
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$ref": "#/$defs/word",
        "minLength": 3,
        "$defs": {"word": {"type": "string"}},
    }
    matcher = byte_compiler().matcher(request(schema=schema))
    assert [matcher.valid(list(text)) for text in (b'"ab"', b'"abc"')] == [3, 5]


def test_a_broken_regex_is_refused() -> None:
    """A regular expression that does not parse, or is too long, is refused before any decoding."""
    check_regex("[a-z]{3}")
    for regex, named in (("[a-z]{3}(", "regex"), ("a" * 5000, "the limit is 4,096")):
        with pytest.raises(SchemaUnsupported, match=named):
            check_regex(regex)
