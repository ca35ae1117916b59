"""Errors cross from an engine's process to its host as a kind and a text."""

from __future__ import annotations

import pytest

from protocols.engine import Refused
from swarm.engine.llama.process.refusals import error_of, refusal
from swarm.errors import (
    EngineClosed,
    EngineError,
    ModelDamaged,
    ModelError,
    ModelNotFound,
    OutOfTime,
    PromptTooLong,
    SchemaUnsupported,
    SourceFailed,
)


@pytest.mark.parametrize(
    "kind",
    [
        PromptTooLong,
        SchemaUnsupported,
        OutOfTime,
        EngineClosed,
        EngineError,
        ModelNotFound,
        ModelDamaged,
        ModelError,
        ValueError,
    ],
)
def test_an_error_is_the_same_on_the_other_side(kind: type[Exception]) -> None:
    """Class and text survive the way."""
    arrived = error_of(refusal(kind("shorten it"), id=7))
    assert type(arrived) is kind and str(arrived) == "shorten it"


def test_an_error_of_a_narrower_class_arrives_as_its_base() -> None:
    """A class that does not travel becomes the nearest one that does."""
    assert refusal(SourceFailed("gone"), id=7) == Refused("model", "gone", 7)
    assert refusal(UnicodeError("half a pair"), id=7).kind == "value"


def test_a_bug_arrives_as_an_engine_error_that_says_so() -> None:
    """What nobody expected names itself and asks to be reported."""
    arrived = error_of(refusal(KeyError("seat"), id=7))
    assert type(arrived) is EngineError and "KeyError('seat')" in str(arrived) and "report" in str(arrived)
