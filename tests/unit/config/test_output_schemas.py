"""Checks of answers by their schema: quick, the same as jsonschema's, and over soon whatever schema and value are."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from swarm.config import quick
from swarm.config.schemas import MOST_STEPS, Validator, schema_problem
from swarm.errors import quote

EXAMPLES = int(os.environ.get("SWARM_SCHEMA_EXAMPLES", "300"))
EVIL = "^(a+)+$"
LONG = "a" * 50_000 + "b"

names = st.sampled_from(["a", "b", "ab"])
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([1.0, 0.5, -0.0, 2**63, 2**64, 2**70, float(2**70), 1e308, math.inf, -math.inf, math.nan])
    | st.sampled_from(["", "a", "b", "ab", "é", "\ud800"])
)
plain_leaves = leaves.filter(lambda v: v != "\ud800" and not (isinstance(v, float) and not math.isfinite(v)))


def within(leaves: Any, tuples: bool) -> Any:
    def wider(inner: Any) -> Any:
        more = st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
        return more | st.lists(inner, max_size=3).map(tuple) if tuples else more

    return st.recursive(leaves, wider, max_leaves=6)


values = within(leaves, tuples=True)
constants = within(plain_leaves, tuples=False)
counts = st.integers(0, 3)
limits = st.integers(-3, 3) | st.sampled_from([0.5, 1.0, 2**64, 1e308])
kinds = st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "null"])


def _schemas(inner: Any) -> Any:
    named = st.dictionaries(names, inner, max_size=3)
    some = st.lists(inner, min_size=1, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": kinds | st.lists(kinds, min_size=1, max_size=3, unique=True),
            **dict.fromkeys(("properties", "dependentSchemas"), named),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$", ""]), inner, max_size=2),
            **dict.fromkeys(("additionalProperties", "items", "propertyNames", "not", "if", "then", "contains"), inner),
            **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), some),
            **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties"), counts),
            **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), limits),
            "multipleOf": st.sampled_from([1, 2, 0.5, 0.1]),
            "required": st.lists(names, max_size=2, unique=True),
            "uniqueItems": st.booleans(),
            "enum": st.lists(constants, min_size=1, max_size=3),
            "const": constants,
            "pattern": st.sampled_from(["^a", "b$", "^$"]),
        },
    )


schemas = st.recursive(st.booleans() | _schemas(st.booleans()), _schemas, max_leaves=5).filter(
    lambda s: isinstance(s, dict)
)


def said(schema: dict[str, Any], value: Any) -> bool | None:
    """What jsonschema says; `None` where it breaks on such a value."""
    try:
        return Draft202012Validator(schema).is_valid(value)
    except (ArithmeticError, ValueError, TypeError):
        return None


@given(schema=schemas, value=values)
@example({"maximum": 5}, math.inf)
@example({"type": "array"}, (1, 2))
@example({"type": "integer"}, 1.0)
@example({"const": 2**70}, float(2**70))
@example({"items": {"type": "string"}}, ["\ud800"])
@settings(max_examples=EXAMPLES, deadline=None)
def test_verdicts_are_those_of_jsonschema(schema: dict[str, Any], value: Any) -> None:
    """Whole floats, numbers beyond 64 bits, infinite ones, lone surrogates and tuples included."""
    expected = said(schema, value)
    if expected is not None:
        assert (Validator(schema).problem(value) is None) == expected


@pytest.mark.parametrize("value", [{1: 2}, {None: 1}, b"a", {1}, object()])
def test_values_that_are_no_json_are_seen_as_before(value: Any) -> None:
    """What jsonschema_rs does not take is left to jsonschema."""
    for schema in ({"type": "object"}, {"type": "string"}, {}):
        assert (Validator(schema).problem(value) is None) == said(schema, value)


@pytest.mark.parametrize(
    "keywords",
    [
        {"properties": {"x": {"pattern": EVIL}}},
        {"properties": {"x": {"$ref": "#/$defs/e"}}, "$defs": {"e": {"pattern": EVIL}}},
        {"properties": {"x": {"not": {"not": {"pattern": EVIL}}}}},
        {"properties": {"x": {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": EVIL}}},
    ],
)
def test_no_pattern_takes_long(keywords: dict[str, Any]) -> None:
    """An expression that would keep Python's `re` busy for ever says no at once, on every way to it."""
    schema = {"type": "object", **keywords}
    assert schema_problem(schema) is None
    assert "output.x does not satisfy" in (Validator(schema).problem({"x": LONG}) or "")
    assert Validator(schema).problem({"x": "aaa"}) is None


@pytest.mark.parametrize("also", [{}, {"not": False}])
def test_no_pattern_of_names_takes_long(also: dict[str, Any]) -> None:
    """Nor does one for the names of properties, where others are refused."""
    schema = {"type": "object", "patternProperties": {EVIL: {"type": "integer"}}, "additionalProperties": False, **also}
    validator = Validator(schema)
    assert "not allowed" in (validator.problem({LONG: 1}) or "")
    assert "is not of type 'integer'" in (validator.problem({"aa": "x"}) or "")
    assert validator.problem({"aa": 1}) is None


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", r"a\Z", "[", "(?:[a-z]{1000}){1000}"])
def test_patterns_of_other_engines_are_refused(pattern: str) -> None:
    """The problem names the pattern and what to leave out."""
    for keywords in ({"properties": {"x": {"pattern": pattern}}}, {"patternProperties": {pattern: {}}}):
        problem = schema_problem({"type": "object", **keywords}) or ""
        assert quote(pattern) in problem and "look-around" in problem


BAD = "(?=a)b"
NAMES = {"patternProperties": {"type": "string"}, "unevaluatedProperties": {"type": "string"}}


@pytest.mark.parametrize(
    "part",
    [{"examples": [{"pattern": BAD}]}, {"enum": [{"pattern": BAD}]}, {"default": {"pattern": BAD}},
     {"x-note": {"pattern": BAD}}, {"properties": {"pattern": {"const": BAD}, **NAMES}},
     {"examples": [{"$ref": "http://127.0.0.1:9/x.json"}]}, {"const": {"$ref": "#/nowhere", "$id": "x"}}],
)  # fmt: skip
def test_what_is_only_a_value_is_no_pattern(part: dict[str, Any]) -> None:
    """A specialist that writes regular expressions may have them among its examples."""
    assert schema_problem({"type": "object", "properties": {"x": part}}) is None


def test_a_value_that_is_referred_to_is_checked() -> None:
    """A `$ref` makes a schema of it; a pattern that escaped the check all the same ends in a sentence."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"x": {"$ref": "#/x-note/a"}},
        "x-note": {"a": {"pattern": BAD}},
    }
    assert "(?=a)b" in (schema_problem(schema) or "")
    assert "cannot be checked in linear time" in (Validator(schema).problem({"x": "b"}) or "")


EVIL_NAMES = {"type": "object", "patternProperties": {EVIL: {}}}
PLACES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("#/x-note/%61", {}, {"x-note": {"%61": {}, "a": EVIL_NAMES}}),
    ("#/x%2Fnote", {}, {"x/note": {}, "x%2Fnote": {}, "x": {"note": EVIL_NAMES}}),
    ("#/note", {"$id": "http://127.0.0.1:9/x.json", "note": EVIL_NAMES}, {"note": {}}),
]


@pytest.mark.parametrize(("ref", "beside", "top"), PLACES)
def test_no_reference_leads_past_the_check(ref: str, beside: dict[str, Any], top: dict[str, Any]) -> None:
    """What is checked is what is applied, however a `$ref` is spelled; Python's `re` sees none."""
    schema = {"type": "object", "properties": {"x": {"$ref": ref, "unevaluatedProperties": False, **beside}}, **top}
    problem = schema_problem(schema) or ""
    assert "leave one out" in problem or "leave that $id out" in problem
    assert problem in (Validator(schema).problem({"x": {LONG: 1}}) or "")


def test_references_are_read_as_part_of_an_address() -> None:
    """A space in the name of a schema is %20 there."""
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/a%20b"}}, "$defs": {"a b": {"type": "string"}}}
    assert schema_problem(schema) is None
    assert "is not of type 'string'" in (Validator(schema).problem({"x": 1}) or "")


@pytest.mark.parametrize("note", [{"pattern": 5}, {"type": "word"}, {"minLength": "z"}, {"patternProperties": ["a"]}])
def test_a_value_that_is_referred_to_is_a_schema(note: dict[str, Any]) -> None:
    """Or else it is refused, where a check by it would raise."""
    schema = {"type": "object", "properties": {"x": {"$ref": "#/x-note"}}, "x-note": note}
    assert "is no JSON Schema" in (schema_problem(schema) or "")


@pytest.mark.parametrize("keyword", ["examples", "x-note"])
def test_deep_values_in_a_schema_are_not_walked(keyword: str) -> None:
    """A mere value may have any depth."""
    assert schema_problem({"type": "object", keyword: [nested(5000, None), nested(5000, "a")]}) is None


def test_an_unchecked_pattern_is_never_believed() -> None:
    """Neither the quick check nor the other one goes by what `schema_problem` refuses."""
    for pattern in (r"^\<b\>$", BAD):
        validator = Validator({"type": "object", "properties": {"x": {"pattern": pattern}}})
        assert "cannot be used: pattern" in (validator.problem({"x": "b"}) or "")


@pytest.mark.parametrize(
    ("pattern", "refused"), [(r"^\<b\>$", True), (r"^\\\<b$", True), (r"^<b>$", False), (r"^\\<b$", False)]
)
def test_the_edge_of_a_word_is_not_written_so(pattern: str, refused: bool) -> None:
    """`\\<` would be something else than in every other place; what follows an escaped backslash is plain."""
    problem = schema_problem({"type": "object", "properties": {"x": {"pattern": pattern}}})
    assert (problem is not None) == refused
    assert problem is None or "write < or > plainly" in problem


def test_unevaluated_properties_stand_alone() -> None:
    """jsonschema would look for them with Python's `re`."""
    schema = {"type": "object", "patternProperties": {"^a": {}}, "unevaluatedProperties": False}
    assert "leave one out" in (schema_problem(schema) or "")


def test_patterns_see_half_a_character() -> None:
    """A lone surrogate counts as one character that is no letter."""
    for also in ({}, {"not": False}):
        validator = Validator({"type": "object", "properties": {"x": {"pattern": "^a.$", **also}}})
        assert validator.problem({"x": "a\ud800"}) is None
        assert validator.problem({"x": "\ud800\ud800"}) is not None


def nested(depth: int, key: str | None) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if key is None else {key: value}
    return value


@pytest.mark.parametrize("key", [None, "a"])
@pytest.mark.parametrize(
    "within", [{}, {"uniqueItems": True}, {"const": nested(20, None)}, {"items": {}}, {"type": "string"}]
)
def test_deep_values_end_in_a_sentence(within: dict[str, Any], key: str | None) -> None:
    """Ten thousand levels neither crash the process nor raise."""
    schema = {"type": "object", "properties": {"x": within}, "required": ["y"]}
    assert "output" in (Validator(schema).problem({"x": nested(10_000, key)}) or "")


@pytest.mark.parametrize("keyword", ["properties", "items", "allOf", "not"])
def test_deep_schemas_are_refused_or_work(keyword: str) -> None:
    """Nor do schemas of thousands of levels."""
    schema: Any = {}
    for _ in range(5000):
        schema = {keyword: {"a": schema} if keyword == "properties" else [schema] if keyword == "allOf" else schema}
    schema["type"] = "object"
    assert "nested too deep" in (schema_problem(schema) or "")
    assert quick.compiled(schema) is None


def test_nested_unevaluated_items_are_compiled_soon() -> None:
    """They would take jsonschema_rs twice as long for each level."""
    schema: dict[str, Any] = {"type": "array"}
    for _ in range(40):
        schema = {"anyOf": [schema], "unevaluatedItems": False}
    assert Validator(schema).problem({"a": 1}) is not None


def test_much_work_is_given_up() -> None:
    """Many values against many choices are not tried one by one for minutes."""
    items = {"anyOf": [{"const": {"k": i}} for i in range(100)]}
    schema = {"type": "object", "properties": {"x": {"type": "array", "items": items}}}
    problem = Validator(schema).problem({"x": [{"k": 99}] * 100_000})
    assert problem == f"the output schema takes more than {MOST_STEPS:,} steps to check; make it simpler"


def test_values_that_hold_themselves_end_in_a_sentence() -> None:
    """A value that is its own item is no endless walk."""
    value: dict[str, Any] = {"x": []}
    value["x"].append(value["x"])
    schema = {"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True, "maxItems": 0}}}
    assert Validator(schema).problem(value) is not None


def test_nothing_is_fetched() -> None:
    """A reference to somewhere else is refused by name, and leads nowhere when it is followed all the same."""
    schema = {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/x.json"}}}
    assert "leads to nothing" in (schema_problem(schema) or "")
    assert "refers to nothing" in (Validator(schema).problem({"x": 1}) or "")


def test_common_schemas_are_quick() -> None:
    """Those of the four kinds take one call to find an answer right."""
    for inner in ({"enum": ["a", "b"]}, {"type": "string"}, {"type": "array", "items": {"type": "integer"}}):
        schema = {"type": "object", "properties": {"x": inner}, "required": ["x"], "additionalProperties": False}
        assert quick.compiled(schema) is not None
