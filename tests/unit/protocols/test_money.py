"""Money is a count of millionths of a dollar, and is never understated."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.money import Amount, dollars, micro_usd

amounts = st.builds(Amount, micro_usd=st.integers(0, 10**12), tokens=st.integers(0, 10**9), ms=st.integers(0, 10**9))


@pytest.mark.parametrize(
    ("usd", "micro"),
    [("0.15", 150_000), (0.1, 100_000), (1, 1_000_000), ("0.0000001", 1), ("1.0000001", 1_000_001), (0, 0)],
)
def test_dollars_become_millionths_rounded_up(usd: str | int | float, micro: int) -> None:
    """A fraction of a millionth counts as a whole one; a float means what it shows."""
    assert micro_usd(usd) == micro


@given(st.decimals("0", "1000000", allow_nan=False))
def test_a_price_is_never_understated(usd: Decimal) -> None:
    """Rounding adds less than one millionth and takes nothing away."""
    assert 0 <= micro_usd(usd) - Fraction(usd) * 1_000_000 < 1


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (0, "$0.0000"),
        (1, "$0.000001"),
        (99, "$0.000099"),
        (100, "$0.0001"),
        (12_345, "$0.0123"),
        (2_500_000, "$2.5000"),
    ],
)
def test_money_is_shown_in_dollars(micro: int, text: str) -> None:
    """Four decimals, six where four would show nothing of it."""
    assert dollars(micro) == text


@given(amounts, amounts)
def test_amounts_add_and_subtract_unit_by_unit(one: Amount, other: Amount) -> None:
    """What is added can be taken away again."""
    both = one + other
    assert (both.micro_usd, both.tokens, both.ms) == (
        one.micro_usd + other.micro_usd,
        one.tokens + other.tokens,
        one.ms + other.ms,
    )
    assert both - other == one
