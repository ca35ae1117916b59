"""What a remote model costs: from the swarm file, or from the table of genai-prices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from protocols.money import MicroUSD, micro_usd

_ASKED = 1_000  # tokens that a price is looked up for: some providers charge more for prompts above 128,000


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
def listed(model: str, base_url: str | None = None) -> Price | None:
    """The list price of `model`, or None when genai-prices does not know it.

    The provider is the one at `base_url` where that is a known one, else the one that the model's name speaks for.
    """
    import genai_prices

    def priced(where: dict[str, Any], **tokens: int) -> Any:
        return genai_prices.calc_price(genai_prices.Usage(**tokens), model_ref=model, **where)

    for where in ({"provider_api_url": base_url}, {}) if base_url else ({},):
        try:
            read = priced(where, input_tokens=_ASKED, output_tokens=0)
            written = priced(where, input_tokens=0, output_tokens=_ASKED)
        except LookupError:
            continue
        return Price(_per_mtok(read), _per_mtok(written), f"genai-prices, {read.provider.id}/{read.model.id}")
    return None


def _per_mtok(priced: Any) -> MicroUSD:
    return micro_usd(priced.total_price * (1_000_000 // _ASKED))
