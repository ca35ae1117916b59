"""The name of an answer changes with everything that the answer depends on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from dispatch_plans import step
from hypothesis import given
from hypothesis import strategies as st

from protocols.control import Calibration
from swarm.dispatch.cache.key import identity, key
from swarm.dispatch.cache.scope import scope
from swarm.dispatch.rules import Rule
from swarm.plan.plan import Aim

STEP = replace(step("intent", "head", "small"), answers_hash="a")
MODELS = {"head": "1", "small": "2"}
RULE = Rule(0.8, "as the file says", calibrations={"head": Calibration(intercept=0.0, weights={"p": 1.0})})
SAID = {"does_intent/head": Calibration(intercept=0.0, weights={"p": 1.0})}
BASE: tuple[Any, ...] = (STEP, Aim(), MODELS, RULE, SAID)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "changed",
    [
        (replace(STEP, answers_hash="b"), *BASE[1:]),
        (replace(STEP, accept_at=0.9), *BASE[1:]),
        (STEP, Aim(error=0.02), *BASE[2:]),
        (STEP, Aim(), {"head": "1", "small": "3"}, *BASE[3:]),
        (STEP, Aim(), MODELS, replace(RULE, accept_at=0.85), SAID),
        (STEP, Aim(), MODELS, replace(RULE, why="certified by 30 labels"), SAID),
        (STEP, Aim(), MODELS, replace(RULE, calibrations={}), SAID),
        (STEP, Aim(), MODELS, RULE, {"does_intent/head": Calibration(intercept=1.0, weights={"p": 1.0})}),
    ],
    ids=[
        "pack, ladder or inputs",
        "accept_at",
        "aim",
        "weights",
        "threshold",
        "certificate",
        "taught",
        "host's",
    ],
)
def test_whatever_an_answer_depends_on_is_in_its_name(changed: tuple[Any, ...]) -> None:
    """Of a step that answers otherwise, or keeps other answers, the old answers are not found."""
    assert identity(*BASE) == identity(*BASE)
    assert identity(*changed) != identity(*BASE)


def test_what_belongs_to_other_steps_is_not() -> None:
    """Another specialist's map, or a model of no tier here, leaves the answers as they were."""
    others = {**SAID, "does_urgency/head": Calibration(intercept=2.0, weights={})}
    assert identity(STEP, Aim(), {**MODELS, "large": "9"}, RULE, others) == identity(*BASE)


def test_texts_that_unicode_holds_for_the_same_are_the_same() -> None:
    """Composed or not, as keys and values, and in any order of keys."""
    composed = {"b": "caf\u00e9", "a": ["\u00c5", {"\u00e9": 1}]}
    apart = {"a": ["A\u030a", {"e\u0301": 1}], "b": "cafe\u0301"}
    assert key("i", composed) == key("i", apart)


inputs = st.dictionaries(st.text(max_size=3), values, max_size=4)


@given(inputs, inputs)
def test_other_inputs_have_other_names(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Types included: true is not 1, and the number 1 is no text."""
    import unicodedata

    def plain(value: Any) -> str:
        return unicodedata.normalize("NFC", repr(sorted_deep(value)))

    assert (key("i", one) == key("i", other)) == (plain(one) == plain(other))


def sorted_deep(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted((k, sorted_deep(v)) for k, v in value.items())
    return [sorted_deep(v) for v in value] if isinstance(value, list) else value


def test_nothing_of_one_tenant_is_in_the_scope_of_another() -> None:
    """Whatever is in their names."""
    named = [(None, "s"), ("-", "s"), ("a", "b/c"), ("a/b", "c"), ("a", "s"), ("a%2Fb", "c")]
    assert len({scope(*names) for names in named}) == len(named)
    assert scope(None, "triage") == "-/triage"
