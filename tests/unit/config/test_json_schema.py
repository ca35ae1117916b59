"""The JSON Schema for editors agrees with what is accepted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from swarm import config
from swarm.config import source, tree

CONFIGS = Path(__file__).parents[3] / "configs"
BAD = Path(__file__).parent / "bad"
SCHEMA = config.json_schema()


def test_the_published_schema_is_the_one_in_use() -> None:
    """configs/swarm.schema.json is what `swarm schema` prints."""
    assert json.loads((CONFIGS / "swarm.schema.json").read_text(encoding="utf-8")) == SCHEMA


def test_it_is_a_valid_schema() -> None:
    """Editors can compile it."""
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", ["minimal.yaml", "triage.yaml"])
def test_it_accepts_the_swarms_that_are_shipped(name: str) -> None:
    """No editor underlines a file that runs."""
    document = yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))
    assert list(Draft202012Validator(SCHEMA).iter_errors(document)) == []


@pytest.mark.parametrize(
    "name",
    [
        *("unknown_key_step", "budget_dollars_key", "budget_cents", "literal_api_key", "memory_units", "wrong_kind"),
        *("schema_version", "empty_tiers", "no_steps", "accept_at_out_of_range", "key_without_value", "bad_tier_name"),
        *("reserved_tier", "reserved_step", "wrong_type_labels", "remote_without_address"),
        *("adapter_wrong_type", "adapter_empty"),
    ],
)
def test_it_refuses_what_is_wrong_in_itself(name: str) -> None:
    """An editor shows the mistakes that can be seen without packs and models."""
    text = source.decode((BAD / f"{name}.yaml").read_bytes(), name)
    assert list(Draft202012Validator(SCHEMA).iter_errors(tree.parse(text, name).value)) != []
