"""How a remote model wants to be asked for JSON. What it refuses says what to change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

_FORMATS = ("json_schema", "json_object with schema", "json_object", "none")  # ways to ask for JSON, the best first


@dataclass(frozen=True, slots=True)
class Manner:
    """The parameters that servers differ in; the formats are tried from the best down."""

    format: int = 0  # in _FORMATS
    limit: str = "max_tokens"
    temperature: bool = True

    def after(self, refusal: str) -> Manner | None:
        """How to ask next, or None when there is no other way."""
        if "max_completion_tokens" in refusal and self.limit == "max_tokens":
            return replace(self, limit="max_completion_tokens")
        if "temperature" in refusal and self.temperature:
            return replace(self, temperature=False)
        return replace(self, format=self.format + 1) if self.format + 1 < len(_FORMATS) else None

    def parameters(self, schema: dict[str, Any], max_tokens: int) -> dict[str, Any]:
        """What the request says besides model and messages. `schema`: of the answer."""
        chosen: dict[str, Any] = {self.limit: max_tokens, **_response_format(_FORMATS[self.format], schema)}
        return {**chosen, "temperature": 0.0} if self.temperature else chosen


def _response_format(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    match kind:
        case "json_schema":
            wrapped = {"name": "answer", "schema": schema}
            return {"response_format": {"type": "json_schema", "json_schema": wrapped}}
        case "json_object with schema":  # llama.cpp, Together, Fireworks
            return {"response_format": {"type": "json_object", "schema": schema}}
        case "json_object":
            return {"response_format": {"type": "json_object"}}
        case _:
            return {}
