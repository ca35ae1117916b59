"""What an attempt costs: money, tokens and time, always as integers."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import msgspec

MicroUSD = int  # millionths of a US dollar


def micro_usd(usd: Decimal | str | int | float) -> MicroUSD:
    """Dollars to millionths of a dollar, rounded up: a price is never understated."""
    return math.ceil(Fraction(Decimal(str(usd))) * 1_000_000)


def dollars(amount: MicroUSD) -> str:
    """Millionths of a dollar as text, e.g. `$0.0123`; four decimals, more for amounts below a hundredth of a cent."""
    return f"${amount / 1_000_000:.4f}" if amount == 0 or abs(amount) >= 100 else f"${amount / 1_000_000:.6f}"


class Amount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A quantity of each of the three things a budget limits."""

    micro_usd: MicroUSD = 0
    tokens: int = 0
    ms: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            micro_usd=self.micro_usd + other.micro_usd, tokens=self.tokens + other.tokens, ms=self.ms + other.ms
        )

    def __sub__(self, other: Amount) -> Amount:
        return Amount(
            micro_usd=self.micro_usd - other.micro_usd, tokens=self.tokens - other.tokens, ms=self.ms - other.ms
        )


class Limit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The most an account may reach, per unit; `None` means no limit on that unit."""

    micro_usd: MicroUSD | None = None
    tokens: int | None = None
    ms: int | None = None
