"""A hostile swarm file is refused with a line for each problem, or is fine; what it asks to compute ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hostile import RICH, checked, fan, nested, swarm_files, written
from hypothesis import given, settings
from yaml import safe_load

from swarm.config.schemas import MOST_STEPS, Validator, path_problem, schema_problem
from swarm.errors import SwarmFileError
from swarm.runtime.launch import planned


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@given(data=swarm_files())
@settings(max_examples=40)
def test_damaged_files_are_fine_or_refused(folder: Path, data: bytes) -> None:
    """Nothing but `SwarmFileError` comes of good files with damage in their values, keys, structure or bytes."""
    assert checked(data, folder) in ("fine", "refused")


def test_the_file_that_is_damaged_is_fine_itself(folder: Path) -> None:
    """Otherwise the damage would be refused for another reason."""
    assert checked(RICH.encode(), folder) == "fine"


def with_schema(schema: dict[str, Any], output: Any, folder: Path) -> str:
    """What is said of the file when an extractor's output has this schema and its example this output."""
    doc = safe_load(RICH)
    doc["specialists"]["found"]["output_schema"] = schema
    doc["specialists"]["found"]["examples"] = [{"input": {"text": "q"}, "output": output}]
    path = folder / "schema.yaml"
    path.write_text(written(doc))
    try:
        planned(path)
    except SwarmFileError as e:
        return str(e)
    return "fine"


@pytest.mark.parametrize(("width", "levels"), [(2, 40), (6, 20)])
def test_schema_that_fans_out_is_given_up(width: int, levels: int, folder: Path) -> None:
    """References that multiply at every level would take longer than the universe has been there."""
    said = with_schema({**fan(width, levels), "properties": {"name": {}}}, {"name": "x"}, folder)
    assert f"takes more than {MOST_STEPS:,} steps to check; make it simpler" in said


def test_choices_that_refer_to_each_other_are_followed_once() -> None:
    """A reference into an output whose schema stands for itself in many ways is looked up in no time."""
    schema = {"type": "object", "anyOf": [{"$ref": "#"}] * 8, "properties": {"x": {"$ref": "#"}}}
    assert path_problem(schema, ("x",) * 500) is None
    assert "no field 'y'" in (path_problem(schema, ("x", "y")) or "")


def test_lists_of_unlike_things_are_compared_quickly() -> None:
    """Ten thousand objects that must all differ are no ten million comparisons, and 1 is 1.0."""
    validator = Validator({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}})
    assert validator.problem({"a": [{"k": i} for i in range(10_000)]}) is None
    assert "not unique" in (validator.problem({"a": [{"k": 1}, {"k": 1.0}]}) or "")
    assert validator.problem({"a": [1, "1", True, None, "null"]}) is None


def test_examples_share_what_their_checks_may_take(folder: Path) -> None:
    """Many examples against a wide schema are not each given the whole time."""
    choices = [{"const": i} for i in range(2000)]
    schema = {"type": "object", "properties": {"name": {"anyOf": choices}}}
    doc = safe_load(RICH)
    examples = [{"input": {"text": "q"}, "output": {"name": 1999}} for _ in range(50)]
    doc["specialists"]["found"] |= {"output_schema": schema, "examples": examples}
    (folder / "wide.yaml").write_text(written(doc))
    with pytest.raises(SwarmFileError, match="steps to check"):
        planned(folder / "wide.yaml")


def test_schema_of_unlike_things_is_checked_quickly() -> None:
    """Also the check of a schema against JSON Schema itself ends."""
    assert "required" in (schema_problem({"type": "object", "required": [{"k": i} for i in range(5000)]}) or "")


def test_long_names_make_short_lines(folder: Path) -> None:
    """A problem is one line that can be read, however long the names in a file are."""
    doc = safe_load(RICH)
    doc["specialists"]["n" * 5000] = doc["specialists"]["told"]
    doc["specialists"]["told"]["input"] = ["a/" * 5000]
    doc["steps"]["said"]["input"]["text"] = nested(5)
    assert checked(written(doc).encode(), folder) == "refused"
