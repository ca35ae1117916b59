"""What to do next with one step: keep the answer, ask something else, or give up. Pure, in microseconds.

Every way up that is left is weighed as a whole (cascade routing: Dekoninck, Baader and Vechev, "A Unified
Approach to Routing and Cascading for LLMs", ICLR 2025): a cheap tier is worth more where a dearer one may follow, and a
dear one is asked at once where what lies between would hardly be believed. What is maximised is

    value · P(right) − (1 + λ) · dollars − dollars a second · seconds

where each attempt counts with the chance to get there. Quality of a later tier after an earlier one has disappointed:
what is left wrong is repaired at the rate at which the later tier is expected to repair what the earlier one leaves.
The ways on are found by backward induction, each at the confidence at which the answer before it disappoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

Kind = Literal["verify", "best_of", "family", "dearer"]
Action = Literal["accept", "verify", "best_of", "family", "escalate", "give_up"]

_ACTIONS: dict[Kind, Action] = {"verify": "verify", "best_of": "best_of", "family": "family", "dearer": "escalate"}


class Now(msgspec.Struct, frozen=True, gc=False):
    """The answer that would be kept: whose it is and P(right)."""

    tier: str
    confidence: float


class Offer(msgspec.Struct, frozen=True, gc=False):
    """Something that can be asked next. Offers stand in the order in which they may follow each other.

    quality: P(the answer kept after asking it is right); accept: the chance that this answer will then be accepted;
    sure: P(right) of it if so, at least `quality`. hold_micro_usd: the most it can cost, if more than expected.
    """

    tier: str
    kind: Kind
    micro_usd: float
    ms: float
    quality: float
    accept: float = 1.0
    sure: float | None = None
    hold_micro_usd: float | None = None


class Value(msgspec.Struct, frozen=True, gc=False):
    """Dollars: what a right answer is worth, what a wrong one costs, a second; and the shadow price of the budget."""

    usd: float
    lambda_: float = 0.0
    usd_per_second: float = 0.0
    wrong_usd: float = 0.0


class Alternative(msgspec.Struct, frozen=True, gc=False):
    """One first action with the best that can follow it: `path`. Expectations; `net` in dollars."""

    action: Action
    tier: str | None
    path: tuple[str, ...]
    quality: float
    micro_usd: float
    ms: float
    net: float


class Choice(msgspec.Struct, frozen=True, gc=False):
    """What to do. `gain`: dollars over keeping what is there. `alternatives`: all that were weighed, the best first."""

    action: Action
    tier: str | None
    gain: float
    alternatives: tuple[Alternative, ...]
    now: Now | None
    value: Value


def choose(now: Now | None, offers: Sequence[Offer], value: Value, left_micro_usd: float | None = None) -> Choice:
    """The best of accepting, giving up and every way through the offers whose hold fits `left_micro_usd`.

    now: None before the first answer. left_micro_usd: None where nothing limits it. Of equals the cheaper is taken.
    """
    fitting = [o for o in offers if left_micro_usd is None or _hold(o) <= left_micro_usd]
    found = [Alternative("give_up", None, (), 0.0, 0.0, 0.0, 0.0)]
    if now is not None:
        p = now.confidence
        kept = Alternative("accept", now.tier, (), p, 0.0, 0.0, value.usd * p - value.wrong_usd * (1.0 - p))
        found.insert(0, kept)
    stay = found[0].net
    found += [rung.told(value.wrong_usd) for rung in reversed(_ladder(fitting, value))]
    found.sort(key=_net, reverse=True)  # stable
    return Choice(found[0].action, found[0].tier, found[0].net - stay, tuple(found), now, value)


# --- the ladder, from its end ---------------------------------------------------------------------------------------


class _Rung:
    """One offer and what follows it where its answer is not accepted: `then`, None to keep the answer.

    The chance of acceptance is taken to grow with P(right), so that what a way is worth is a straight line over it:
    `fixed` + `slope` · P(right after asking), in dollars. `unsure`: P(right) of an answer that is not accepted.
    """

    __slots__ = ("fixed", "likely", "offer", "slope", "sure", "then", "unsure")

    fixed: float
    slope: float

    def __init__(self, offer: Offer, price: float, worth: float, later: Sequence[_Rung]) -> None:
        quality = offer.quality
        self.offer = offer
        self.sure = quality if offer.sure is None else max(offer.sure, quality)
        self.likely = min(offer.accept / quality, 1.0 / self.sure) if quality > 0.0 else 0.0
        accept = self.likely * quality
        self.unsure = (quality - accept * self.sure) / (1.0 - accept) if accept < 1.0 else quality
        self.then: _Rung | None = None
        fixed, slope, most = 0.0, worth, worth * self.unsure
        if accept < 1.0 and quality < 1.0:
            for rung in later:
                repaired = (rung.offer.quality - quality) / (1.0 - quality)
                if repaired <= 0.0:
                    continue
                at_none, rise = rung.fixed + rung.slope * repaired, rung.slope * (1.0 - repaired)
                if at_none + rise * self.unsure > most:
                    fixed, slope, most, self.then = at_none, rise, at_none + rise * self.unsure, rung
        self.fixed = fixed - price
        self.slope = self.likely * (worth * self.sure - fixed) + slope * (1.0 - self.likely * self.sure)

    def told(self, wrong_usd: float) -> Alternative:
        """The whole way from here: each attempt with the chance to get there."""
        rung, quality, reach = self, self.offer.quality, 1.0
        right, micro_usd, ms, path = 0.0, 0.0, 0.0, [self.offer.tier]
        while True:
            offer = rung.offer
            micro_usd += reach * offer.micro_usd
            ms += reach * offer.ms
            then = rung.then
            if then is None:
                break
            accept = min(1.0, rung.likely * quality)
            right += reach * accept * rung.sure
            kept = (quality - accept * rung.sure) / (1.0 - accept) if accept < 1.0 else quality
            quality = kept + (1.0 - kept) * (then.offer.quality - offer.quality) / (1.0 - offer.quality)
            reach *= 1.0 - accept
            rung = then
            path.append(then.offer.tier)
        net = self.fixed + self.slope * self.offer.quality - wrong_usd
        return Alternative(_ACTIONS[self.offer.kind], path[0], tuple(path), right + reach * quality, micro_usd, ms, net)


def _ladder(offers: Sequence[Offer], value: Value) -> list[_Rung]:
    """The offers from the last to the first, each with the best way on."""
    worth, paid, second = value.usd + value.wrong_usd, (1.0 + value.lambda_) / 1e6, value.usd_per_second / 1e3
    rungs: list[_Rung] = []
    for offer in reversed(offers):
        rungs.append(_Rung(offer, paid * offer.micro_usd + second * offer.ms, worth, rungs))
    return rungs


def _hold(offer: Offer) -> float:
    return offer.micro_usd if offer.hold_micro_usd is None else offer.hold_micro_usd


def _net(alternative: Alternative) -> float:
    return alternative.net


# --- what would have changed it ---------------------------------------------------------------------------------


def tipping_confidence(choice: Choice) -> float | None:
    """The confidence from which on the answer that is there would be accepted, 0..1; None if there is none, or if it
    would be at any confidence.

    Closed form: each way repairs a share of what is wrong at a price, so it pays up to 1 − price / (worth · share).
    """
    if choice.now is None or choice.now.confidence >= 1.0:
        return None
    worth, p = choice.value.usd + choice.value.wrong_usd, choice.now.confidence
    tips = [
        1.0 - _price(a, choice.value) * (1.0 - p) / (worth * (a.quality - p))
        for a in choice.alternatives
        if a.path and a.quality > p and worth > 0.0
    ]
    return max((t for t in tips if t > 0.0), default=None)


def tipping_lambda(choice: Choice) -> float | None:
    """The shadow price at which the next best alternative would have been taken; None if none would at any.

    Above the present one for a choice that pays for something, below for one that saves.
    """
    chosen, value = choice.alternatives[0], choice.value
    worth, second = value.usd + value.wrong_usd, value.usd_per_second / 1e3
    tips = []
    for other in choice.alternatives[1:]:
        dearer = (chosen.micro_usd - other.micro_usd) / 1e6
        if dearer == 0.0 or "give_up" in (other.action, chosen.action):
            continue
        at = (worth * (chosen.quality - other.quality) - second * (chosen.ms - other.ms)) / dearer - 1.0
        if at >= 0.0 and (at > value.lambda_) == (dearer > 0.0):
            tips.append(at)
    return min(tips, key=lambda at: abs(at - value.lambda_), default=None)


def _price(alternative: Alternative, value: Value) -> float:
    return (1.0 + value.lambda_) * alternative.micro_usd / 1e6 + value.usd_per_second * alternative.ms / 1e3
