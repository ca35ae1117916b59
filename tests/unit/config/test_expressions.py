"""Expressions of a pack's rules, and numbers as people write them."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.config.expressions import BadExpression, Unknown, expression
from swarm.config.numbers import decimal, exact


@pytest.mark.parametrize(
    ("text", "values", "result"),
    [
        ("price * quantity", {"price": "12,50 €", "quantity": 3}, Fraction("37.5")),
        ("0.1 + 0.2 == 0.3", {}, True),
        ("-(a - b) / 3", {"a": 1, "b": 2}, Fraction(1, 3)),
        ("round(total / 3, 2)", {"total": 10}, Fraction("3.33")),
        ("round(2.675, 2)", {}, Fraction("2.68")),
        ("round(-0.5)", {}, Fraction(-1)),
        ("max(abs(a), 2, min(b, 9))", {"a": -1, "b": 5}, Fraction(5)),
        ("len(name) > 2 and not done", {"name": "abc", "done": False}, True),
        ("order.kind in ['card', 'cash']", {"order": {"kind": "cash"}}, True),
        ("'ab' not in text", {"text": "cabs"}, False),
        ("order != null", {"order": None}, False),
        ("order == null or 1 < order <= 3", {"order": 3}, True),
        ("a.b.c == null", {"a": 5}, True),
        ("n == '1,299.00'", {"n": 1299}, True),
        ("name == 'X'", {"name": "x"}, False),
    ],
)
def test_expressions_are_computed_exactly(text: str, values: dict[str, Any], result: Any) -> None:
    """Numbers are fractions, written ones too; what is not there is null."""
    assert expression(text).value(values) == result


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a + 1", "a is no number"),
        ("1 / b", "something is divided by 0"),
        ("a and true", "a is neither true nor false"),
        ("len(b)", "b has no length"),
        ("1 in b", "in looks into a text or a list only"),
        ("round(1, 99)", "round takes 0 to 12 places"),
    ],
)
def test_an_expression_without_a_value_says_why(text: str, said: str) -> None:
    """A missing number makes nothing up."""
    with pytest.raises(Unknown, match=said):
        expression(text).value({"a": None, "b": 0})


@pytest.mark.parametrize(
    "text",
    [
        *("a ** 2", "__import__('os')", "a[0]", "lambda: 1", "True", "1 if a else 2", "f(x)", "a.b()", "x := 1", ""),
        *("a is b", "9" * 400, "+".join("a" * 120), "(" * 250, "f'{a}'", "[x for x in a]", "min(1)", "abs(a, b=1)"),
    ],
)
def test_what_is_no_arithmetic_is_refused(text: str) -> None:
    """Whatever could run, loop or grow is told to be left out when the pack is read."""
    with pytest.raises(BadExpression, match=r"use names|make it shorter|write true"):
        expression(text)


@given(st.text("ab.()+-*/<>=!'\", 019andortuefls[]", max_size=60))
def test_every_text_is_an_expression_or_a_problem(text: str) -> None:
    """Nothing else comes of it, neither when it is read nor when it is computed."""
    with contextlib.suppress(BadExpression, Unknown):
        expression(text).value({"a": 1, "b": "x"})


def test_an_expression_knows_what_it_reads() -> None:
    """Its names are what `swarm check` compares with the fields and inputs there are."""
    assert expression("a.b * c + round(2, 1)").names == {("a", "b"), ("c",)}


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        *(("1.299,00 €", "1299.00"), ("EUR 12.5", "12.5"), ("12 500", "12500"), ("1'299.50", "1299.50"), ("−3", "-3")),
        *(("0.125", "0.125"), ("12.345.678", "12345678"), ("1299.123", "1299.123"), ("$ -5", "-5"), ("5 USD", "5")),
        *(("1.299", None), ("1,2,3", None), ("USD", None), ("1.2.3", None), ("3 items", None), ("1,299,00", None)),
        *(("", None), ("٣", None), ("9" * 99, None)),
    ],
)
def test_a_written_number_is_read_exactly_or_not_at_all(text: str, digits: str | None) -> None:
    """What could be two numbers is none."""
    assert decimal(text) == digits


@pytest.mark.parametrize("value", [True, None, float("nan"), float("inf"), 1e300, 10**40, "x", [1], {"a": 1}])
def test_what_is_no_number_is_none(value: Any) -> None:
    """Truth values, infinities and what nobody means are no numbers."""
    assert exact(value) is None
