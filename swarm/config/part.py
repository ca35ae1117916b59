"""What every mapping in a file has in common, and how its kind is told from its shape."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Discriminator, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from swarm.config.problems import did_you_mean


class Part(BaseModel):
    """Base of every mapping in a file: unknown keys are errors that say which key was meant."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    @model_validator(mode="wrap")
    @classmethod
    def _suggest_keys(cls, value: Any, handler: Any) -> Any:
        empty = cls._empty(value) if isinstance(value, dict) else []
        try:
            checked = handler(value)
        except ValidationError as e:
            rest = [cls._said(d) for d in e.errors() if d["loc"] not in [found["loc"] for found in empty]]
            raise ValidationError.from_exception_data(cls.__name__, empty + rest) from None
        if empty:
            raise ValidationError.from_exception_data(cls.__name__, empty)
        return checked

    @classmethod
    def _empty(cls, value: dict[str, Any]) -> list[InitErrorDetails]:
        """A key without a value is a slip, not a way to leave it out."""
        error = PydanticCustomError("wrong", "{text}", {"text": "has no value; give it one or delete the key"})
        names = [field.alias or name for name, field in cls.model_fields.items()]
        return [
            {"type": error, "loc": (name,), "input": None} for name in names if name in value and value[name] is None
        ]

    @classmethod
    def _said(cls, details: Any) -> InitErrorDetails:
        kind, loc, context = details["type"], details["loc"], details.get("ctx", {})
        if kind == "extra_forbidden" and len(loc) == 1:
            known = (field.alias or name for name, field in cls.model_fields.items())
            kind, context = "unknown_key", {"text": f"is not a key here{did_you_mean(str(loc[0]), known)}"}
        error = PydanticCustomError(kind, "{text}", context) if "text" in context else kind
        return InitErrorDetails(type=error, loc=loc, input=details["input"], ctx=context)


def _by_shape(value: Any) -> str:
    match value:
        case str():
            return "<text>"
        case {"model": _} | {"base_url": _}:
            return "<remote>"
        case {"replay": _}:
            return "<replay>"
        case list():
            return "<list>"
        case _:
            return "<mapping>"


BY_SHAPE = Discriminator(_by_shape)
SHAPES = ("<text>", "<remote>", "<replay>", "<list>", "<mapping>")


def _by_type(value: Any) -> str:
    return "<text>" if isinstance(value, str) else "<mapping>" if isinstance(value, dict) else "<list>"


BY_TYPE = Discriminator(_by_type)
