"""What can be asked next, as the choice weighs it: prices and fitted quality made into offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from swarm.dispatch.choice import Kind, Now, Offer, Value
from swarm.dispatch.quality import Quality, Reading


class Priced(msgspec.Struct, frozen=True, gc=False):
    """A tier that can still be asked: expected price and time, and the most it can cost where that is more."""

    tier: str
    micro_usd: float
    ms: float = 0.0
    kind: Kind = "dearer"
    hold_micro_usd: float | None = None


def weighed(
    quality: Quality, readings: Mapping[str, Reading], priced: Sequence[Priced], value: Value,
    context: Sequence[float] = (),
) -> tuple[Now | None, list[Offer]]:  # fmt: skip
    """The answer kept so far and an offer for each priced tier, in their order; a tier unknown to `quality` has none.

    An answer is expected to be accepted where no later offer would repair it at its price.
    """
    estimates = quality.estimates(readings, context)
    kept = quality.kept(readings, estimates)
    now = None if kept is None else Now(quality.tiers[kept], estimates[kept])
    places = {tier: i for i, tier in enumerate(quality.tiers)}
    known = [(p, places[p.tier], estimates[places[p.tier]]) for p in priced if p.tier in places]
    offers = []
    for n, (p, place, right) in enumerate(known):
        at = _accepted_from(right, known[n + 1 :], value)
        accept, sure = 1.0, right
        if at > 0.0:
            outlook = quality.outlook(readings, place, right)
            likely = [x for x in outlook if x >= at]
            accept = len(likely) / len(outlook)
            sure = sum(likely) / len(likely) if likely else 1.0
        offers.append(Offer(p.tier, p.kind, p.micro_usd, p.ms, right, accept, sure, p.hold_micro_usd))
    return now, offers


def _accepted_from(right: float, later: Sequence[tuple[Priced, int, float]], value: Value) -> float:
    """The least confidence at which no later tier pays: each repairs its share of what is wrong, at its price."""
    worth, at = value.usd + value.wrong_usd, 0.0
    for p, _, quality in later:
        if quality > right and worth > 0.0:
            price = (1.0 + value.lambda_) * p.micro_usd / 1e6 + value.usd_per_second * p.ms / 1e3
            at = max(at, 1.0 - price * (1.0 - right) / (worth * (quality - right)))
    return at
