"""Random JSON Schemas for hypothesis: every keyword that can be enforced, alone and beside others."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]

_NAMES = ["a", "b", "name", "order id", "größe", 'q"uote', "x/y"]
_PATTERNS = ["^[A-Z]{2}-[0-9]+$", "^a", "b$", "[0-9]{3}", "^(yes|no)$", "^\\d{2,4}$", "@", "^[^ ]*$", "^.{2,5}$"]
_FORMATS = ["date", "time", "date-time", "email", "uuid", "ipv4", "ipv6", "uri", "hostname", "duration"]
_REFS = ["#", "#/$defs/one", "#/$defs/two"]

names = st.sampled_from(_NAMES)
counts = st.integers(0, 6)
texts = st.text(
    st.characters(max_codepoint=0x1FFFF, exclude_categories=["Cs"]), max_size=6
)  # SmolLM2 cannot spell more
plain = st.none() | st.booleans() | st.integers(-50, 1000) | st.floats(-9, 9).map(lambda x: round(x, 2)) | texts
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))


def _some(optional: dict[str, st.SearchStrategy[Any]], **required: st.SearchStrategy[Any]) -> st.SearchStrategy[Schema]:
    """Some of the `optional` keywords, and all of the `required` ones."""
    return st.fixed_dictionaries(required, optional=optional)


_strings = _some(
    {
        "minLength": counts,
        "maxLength": st.integers(0, 30),
        "pattern": st.sampled_from(_PATTERNS),
        "format": st.sampled_from(_FORMATS),
    },
    type=st.just("string"),
)
_numbers = _some(
    {
        "minimum": st.integers(-200, 200) | st.floats(-9, 9).map(lambda x: round(x, 3)),
        "maximum": st.integers(-200, 5000),
        "exclusiveMinimum": st.integers(-20, 20),
        "exclusiveMaximum": st.integers(0, 900) | st.just(0.5),
        "multipleOf": st.integers(1, 12),
    },
    type=st.sampled_from(["integer", "number"]),
)
_leaves = (
    _strings
    | _numbers
    | st.fixed_dictionaries({"type": st.sampled_from(["boolean", "null", "object", "array"])})
    | st.fixed_dictionaries({"enum": st.lists(values, min_size=1, max_size=5)})
    | st.fixed_dictionaries({"const": values})
    | st.fixed_dictionaries({"$ref": st.sampled_from(_REFS)})
    | st.lists(st.sampled_from(["string", "integer", "null", "boolean"]), min_size=1, max_size=3, unique=True).map(
        lambda kinds: {"type": kinds}
    )
    | st.just({})
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Schema]:
    one = inner | st.booleans()
    arrays = _some(
        {"items": one, "prefixItems": st.lists(inner, max_size=3), "minItems": counts, "maxItems": counts},
        type=st.just("array"),
    )
    objects = _some(
        {
            "required": st.lists(names, max_size=3, unique=True),
            "additionalProperties": one,
            "patternProperties": st.dictionaries(st.sampled_from(["^x-", "[0-9]$"]), inner, max_size=2),
            "minProperties": st.integers(0, 2),
            "maxProperties": counts,
            "title": st.just("a title"),
        },
        type=st.just("object"),
        properties=st.dictionaries(names, one, max_size=4),
    )
    several = st.lists(inner, min_size=1, max_size=3)
    choices = st.sampled_from(["anyOf", "anyOf", "allOf", "oneOf"]).flatmap(
        lambda keyword: several.map(lambda schemas: {keyword: schemas})
    )
    beside = st.tuples(objects | _strings | arrays, choices).map(lambda both: both[0] | both[1])
    return objects | arrays | choices | beside


_inner = st.recursive(_leaves, _containers, max_leaves=6)
schemas = st.tuples(_inner | _containers(_inner), _inner, _inner).map(
    lambda drawn: drawn[0] | {"$defs": {"one": drawn[1], "two": drawn[2]}}
)
