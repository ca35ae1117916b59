"""Errors on their way from an engine's process to its host: a kind and a text, and the same class again."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from protocols.engine import ErrorKind, Refused
from swarm.errors import (
    EngineClosed,
    EngineError,
    ModelDamaged,
    ModelError,
    ModelNotFound,
    OutOfTime,
    PromptTooLong,
    SchemaUnsupported,
)

_CLASSES: Mapping[ErrorKind, type[Exception]] = MappingProxyType(
    {
        "prompt_too_long": PromptTooLong,
        "schema_unsupported": SchemaUnsupported,
        "out_of_time": OutOfTime,
        "closed": EngineClosed,
        "engine": EngineError,
        "model_not_found": ModelNotFound,
        "model_damaged": ModelDamaged,
        "model": ModelError,
        "value": ValueError,
        "bug": EngineError,
    }
)
_KINDS: Mapping[type, ErrorKind] = MappingProxyType({kind: name for name, kind in _CLASSES.items() if name != "bug"})


def refusal(error: Exception, id: int | None = None) -> Refused:
    """The error as a message; its nearest known base class where it is of a class that does not travel."""
    for base in type(error).__mro__:
        if base in _KINDS:
            return Refused(_KINDS[base], str(error), id)
    return Refused("bug", f"the engine failed: {error!r}; report this as a bug", id)


def error_of(refused: Refused) -> Exception:
    """The error that the message tells of."""
    return _CLASSES[refused.kind](refused.text)
