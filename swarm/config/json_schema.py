"""The JSON Schema of a swarm file, for editors."""

from __future__ import annotations

from typing import Any

from swarm.config.schema import SwarmSpec
from swarm.config.values import BUILT_IN_TIERS, IDENTIFIER, RESERVED_STEPS


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) that completes and checks a swarm file while it is typed."""
    schema: dict[str, Any] = _tidy(SwarmSpec.model_json_schema(by_alias=True))
    for section, reserved in (("models", BUILT_IN_TIERS), ("specialists", ()), ("steps", RESERVED_STEPS)):
        names: dict[str, Any] = {"pattern": f"^{IDENTIFIER.pattern}$"}
        schema["properties"][section]["propertyNames"] = names | ({"not": {"enum": list(reserved)}} if reserved else {})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "A swarm (swarm/v1)"}


def _tidy(node: Any, is_keys: bool = False) -> Any:
    """Without generated titles, nulls that mean "left out", and defaults that only say null."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    if is_keys:
        return {key: _tidy(value) for key, value in node.items()}
    kept = {key: value for key, value in node.items() if key != "title" and (key, value) != ("default", None)}
    kept = {key: value for key, value in kept.items() if not (key == "default" and isinstance(value, dict))}
    choices = [choice for choice in kept.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        kept = {**choices[0], **{key: value for key, value in kept.items() if key != "anyOf"}}
    elif choices:
        kept["anyOf"] = choices
    return {key: _tidy(value, is_keys=key in ("properties", "$defs")) for key, value in kept.items()}
