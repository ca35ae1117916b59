"""What attempts may cost, and what the remote model would have needed: token counts from the texts at hand.

A language model's hold at a small tier is an allowance that the specialist keeps to. A remote hold bounds the input by
its UTF-8 bytes (a token covers at least one), as another tokeniser's count cannot be known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from protocols.money import Amount
from protocols.packs import Pack
from swarm.engine.prices import Price
from swarm.engine.remote import price_of
from swarm.plan.plan import PlannedStep, Tier
from swarm.specialists import classify, extract, generate
from swarm.specialists.remote import messages

CHARS_PER_TOKEN = 4  # of ordinary text, for estimates; holds use bytes
_ALLOWANCE = {"classify": classify.allowance, "extract": extract.allowance, "generate": generate.allowance}
_PER_MESSAGE = 16  # tokens that chat markup may add to each message


class Estimator:
    """Implements `dispatch.accounts.Estimator` from packs and prices."""

    def __init__(self) -> None:
        self._fixed_chars: dict[str, int] = {}

    def hold(self, step: PlannedStep, tier: Tier, given: Mapping[str, Any]) -> Amount:
        if tier.model is not None and (said := tier.model.recording) is not None:
            return Amount(micro_usd=said.most_micro_usd, tokens=said.most_tokens)
        match tier.kind:
            case "small":
                return Amount(tokens=_ALLOWANCE[step.pack.kind](step.pack, given))
            case "remote":
                return self._remote_hold(step.pack, tier, given)
            case _:
                return Amount()

    def remote_tokens(self, step: PlannedStep, given: Mapping[str, Any], output: Mapping[str, Any]) -> tuple[int, int]:
        if step.pack.kind == "tool":
            return 0, 0
        if step.specialist not in self._fixed_chars:
            self._fixed_chars[step.specialist] = _chars(messages(step.pack, {}))
        variable = _length(given)
        answer = _length(output) if output else step.pack.max_tokens * CHARS_PER_TOKEN // 2
        return (self._fixed_chars[step.specialist] + variable) // CHARS_PER_TOKEN, max(1, answer // CHARS_PER_TOKEN)

    def _remote_hold(self, pack: Pack, tier: Tier, given: Mapping[str, Any]) -> Amount:
        chat = messages(pack, dict(given))
        most_in = sum(len(m["content"].encode()) + _PER_MESSAGE for m in chat) + len(json.dumps(pack.output_schema))
        price = price_of(tier.model) if tier.model is not None else None
        assert price is not None, "a tier without a price is unavailable and never tried"
        return Amount(micro_usd=price.cost(most_in, pack.max_tokens), tokens=most_in + pack.max_tokens)


def baseline_price(compare_with: str | None, models: Mapping[str, Any]) -> tuple[str, Price] | None:
    """The model that the receipt compares with: the one named, else the swarm's remote model, with its price."""
    from swarm.engine.prices import listed

    if compare_with is not None:
        price = listed(compare_with)
        return (compare_with, price) if price is not None else None
    remote = next((m for m in models.values() if m.kind == "remote" and m.recording is None), None)
    if remote is None:
        return None
    price = price_of(remote)
    return (remote.name, price) if price is not None else None


def _length(values: Mapping[str, Any]) -> int:
    """In characters of JSON; what is no JSON counts as its text, for an estimate harms no task."""
    return len(json.dumps(dict(values), ensure_ascii=False, default=str))


def _chars(chat: list[dict[str, str]]) -> int:
    return sum(len(m["content"]) for m in chat)
