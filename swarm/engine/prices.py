"""What a remote model costs: from the swarm file, or from the table of genai-prices."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from protocols.money import MicroUSD


@dataclass(frozen=True, slots=True)
class Price:
    """Micro-dollars per million tokens, and where the figures are from."""

    input_per_mtok: MicroUSD
    output_per_mtok: MicroUSD
    source: str

    def cost(self, tokens_in: int, tokens_out: int) -> MicroUSD:
        """Micro-dollars for so many tokens, rounded up."""
        return -(-(tokens_in * self.input_per_mtok + tokens_out * self.output_per_mtok) // 1_000_000)


@cache
def listed(model: str) -> Price | None:
    """The list price of `model`, or None when genai-prices does not know it."""
    import genai_prices

    million = 1_000_000
    try:
        priced_in = genai_prices.calc_price(genai_prices.Usage(input_tokens=million, output_tokens=0), model_ref=model)
        priced_out = genai_prices.calc_price(genai_prices.Usage(input_tokens=0, output_tokens=million), model_ref=model)
    except LookupError:
        return None
    version = f"genai-prices, {priced_in.provider.id}/{priced_in.model.id}"
    return Price(_micro(priced_in.total_price), _micro(priced_out.total_price), version)


def _micro(usd: Decimal) -> MicroUSD:
    return int(usd * 1_000_000)
