"""Prices: whole millionths of a dollar, never understated."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.control import ModelSpec
from swarm.engine.prices import Price, listed
from swarm.engine.remote import price_of

tokens = st.integers(0, 10**9)
per_mtok = st.integers(0, 10**9)


@given(read=tokens, written=tokens, price_in=per_mtok, price_out=per_mtok)
def test_cost_is_rounded_up_by_less_than_a_micro_dollar(read: int, written: int, price_in: int, price_out: int) -> None:
    """A cost is the exact one, rounded up to the next millionth of a dollar."""
    exact = Fraction(read * price_in + written * price_out, 1_000_000)
    assert 0 <= Price(price_in, price_out, "").cost(read, written) - exact < 1


@given(read=tokens, written=tokens, more=st.integers(0, 1000))
def test_cost_grows_with_tokens(read: int, written: int, more: int) -> None:
    """More tokens never cost less, so the price of a bound is a bound of the price."""
    price = Price(150_000, 600_000, "")
    assert price.cost(read + more, written) >= price.cost(read, written)


def test_known_model_has_its_list_price() -> None:
    """The table knows the models of the large providers, and the price says where it is from."""
    assert listed("gpt-4o-mini") == Price(150_000, 600_000, "genai-prices, openai/gpt-4o-mini")


def test_price_is_that_of_ordinary_prompts() -> None:
    """A model that costs more for very long prompts has its ordinary price."""
    price = listed("claude-sonnet-4-5")
    assert price is not None and (price.input_per_mtok, price.output_per_mtok) == (3_000_000, 15_000_000)


def test_provider_at_the_address_sets_the_price() -> None:
    """The same model may cost something else elsewhere: the address decides, where it is a known one."""
    price = listed("openai/gpt-4o-mini", "https://openrouter.ai/api/v1")
    assert price is not None and "openrouter" in price.source
    own = listed("gpt-4o-mini", "http://127.0.0.1:8000/v1")
    assert own is not None and "openai" in own.source


@pytest.mark.parametrize("name", ["no-such-model-anywhere", ""])
def test_unknown_model_has_no_price(name: str) -> None:
    """What the table does not know has no price, rather than the price of something similar."""
    assert listed(name) is None


def test_price_in_the_file_comes_first() -> None:
    """A price in the swarm file overrides the list price; zero is a price too."""
    spec = ModelSpec(
        tier="remote", kind="remote", name="gpt-4o-mini", input_micro_usd_per_mtok=0, output_micro_usd_per_mtok=5
    )
    assert price_of(spec) == Price(0, 5, "the swarm file")
