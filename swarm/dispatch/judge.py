"""Is this answer good enough, and if not, who is asked next? Pure: a step's rule, what is known, what money is worth.

Without a stated value of an answer, tiers are asked in order until one is sure enough. With one, asking on is weighed
against its price (`choice`): a sure answer may be worth a dearer one's look, and a doubtful one may not be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from protocols.tasks import Weighed
from swarm.dispatch.choice import (
    Alternative,
    Choice,
    Kind,
    Now,
    Offer,
    Value,
    choose,
    tipping_confidence,
    tipping_lambda,
)
from swarm.dispatch.offers import Priced, weighed
from swarm.dispatch.quality import Reading
from swarm.dispatch.rules import LOCAL, Prices, Rule
from swarm.plan.plan import Aim, PlannedStep, Tier

NEVER = 2.0  # a threshold that no confidence reaches
FREE = Prices(0.0, 0.0)
REMOTE_RIGHT, LOCAL_RIGHT = 0.9, 0.7  # P(right) of a tier of which nothing has been measured


@dataclass(frozen=True, slots=True)
class Money:
    """What there is to spend. `left_micro_usd`: None where nothing limits it. `prices`: of tiers, as far as known."""

    left_micro_usd: float | None = None
    shadow_price: float = 0.0
    prices: Mapping[str, Prices] = field(default_factory=dict)


PLENTY = Money()


@dataclass(frozen=True, slots=True)
class Verdict:
    """`rung`: who is asked if the answer is not accepted, as a place in the ladder; None: nobody, keep the best.

    `weighed` is empty where nothing was weighed.
    """

    accepted: bool
    rung: int | None
    accept_at: float
    reason: str
    weighed: tuple[Weighed, ...] = ()
    would_change: str = ""
    rule: str = ""


def judge(
    step: PlannedStep, rung: int, readings: Mapping[str, Reading], rule: Rule, aim: Aim, money: Money,
    missing: Mapping[str, str] | frozenset[str] = frozenset(), *, alarmed: bool = False,
) -> Verdict:  # fmt: skip
    """Judge the answer of the tier at `rung`. `missing`: tiers that cannot be asked; `alarmed`: see `Watch`."""
    tier = step.ladder[rung]
    sure = readings[tier.name].confidence
    least = threshold(step, tier, rule, alarmed=alarmed)
    by_right = aim.certified and tier.kind in LOCAL and sure >= least  # just what the certificate was made for
    if aim.answer_micro_usd is None or by_right:
        return _in_order(rung, sure, least, rule)
    value = value_of(aim, money)
    now, offers = _offers(step, rung, readings, rule, money, missing, value)
    choice = choose(now, offers, value, money.left_micro_usd)
    return replace(_by_value(step, rung, sure, least, choice), rule=rule.why)


def value_of(aim: Aim, money: Money) -> Value:
    """What the aim says a right answer and a second are worth, at the shadow price of the moment."""
    return Value(
        usd=(aim.answer_micro_usd or 0) / 1e6, lambda_=money.shadow_price, usd_per_second=aim.second_micro_usd / 1e6
    )


def threshold(step: PlannedStep, tier: Tier, rule: Rule, *, alarmed: bool = False) -> float:
    """Least confidence at which this tier's answer is kept; above 1: none is."""
    if tier.kind not in LOCAL:
        return step.accept_at
    return NEVER if alarmed or rule.accept_at is None else rule.accept_at


def _in_order(rung: int, sure: float, least: float, rule: Rule) -> Verdict:
    told = rule.why if rule.certificate is not None or rule.accept_at is None else ""
    if sure >= least:
        return Verdict(True, None, least, "confident enough", rule=told)
    said = f"confidence {sure:.2f} is below {least:.2f}" if least < NEVER else "no answer of this tier is kept"
    return Verdict(False, rung + 1, least, said, rule=told)


def _by_value(step: PlannedStep, rung: int, sure: float, least: float, choice: Choice) -> Verdict:
    weighed = tuple(map(_told, choice.alternatives))
    paths = [a for a in choice.alternatives if a.path]
    stay = choice.action in ("accept", "give_up")
    changed = _would_change(choice, sure)
    if stay and sure >= least:
        return Verdict(True, None, least, "nothing dearer is worth its price", weighed, changed)
    if stay and least < NEVER and not _person_follows(step):
        said = f"confidence {sure:.2f} is below {least:.2f}, and nothing dearer is worth its price"
        return Verdict(False, None, least, said, weighed, changed)
    names = [tier.name for tier in step.ladder]
    if stay:  # it may not be kept: the best that can be asked, else the person at the end
        said = f"confidence {sure:.2f} does not reach what is kept"
        to = len(names) - 1 if _person_follows(step) and rung < len(names) - 1 else None
        if paths and least >= NEVER:
            to = names.index(paths[0].path[0])
        return Verdict(False, to, least, said, weighed, changed)
    said = f"a gain of {choice.gain:.6f} dollars is expected of asking {choice.tier}"
    return Verdict(False, names.index(choice.alternatives[0].path[0]), least, said, weighed, changed)


def _person_follows(step: PlannedStep) -> bool:
    return step.ladder[-1].kind == "person"


def _would_change(choice: Choice, sure: float) -> str:
    tips = []
    if (confidence := tipping_confidence(choice)) is not None:
        side = "below" if sure >= confidence else "from"
        tips.append(f"{side} confidence {confidence:.3f}")
    if (price := tipping_lambda(choice)) is not None:
        tips.append(f"at a shadow price of {price:.3f}")
    return f"it would have been otherwise {' or '.join(tips)}" if tips else ""


def _told(a: Alternative) -> Weighed:
    return Weighed(action=a.action, path=a.path, quality=a.quality, micro_usd=a.micro_usd, ms=a.ms, net=a.net)


# --- what can be asked ------------------------------------------------------------------------------------------


def _offers(
    step: PlannedStep, rung: int, readings: Mapping[str, Reading], rule: Rule, money: Money,
    missing: Mapping[str, str] | frozenset[str], value: Value,
) -> tuple[Now, list[Offer]]:  # fmt: skip
    """The answer at hand, and every dearer tier that can be asked with what is expected of it.

    From the labels where there are any of that tier, else from what such a tier is usually worth.
    """
    tier = step.ladder[rung]
    above = [t for t in step.ladder[rung + 1 :] if t.kind != "person" and t.name not in missing]
    priced = [_priced(t, rule, money) for t in above]
    learnt = [] if rule.quality is None else weighed(rule.quality, readings, priced, value)[1]
    now = Now(tier.name, _present(tier, readings, rule))
    known = {offer.tier: offer for offer in learnt}
    return now, [
        known.get(p.tier) or Offer(p.tier, p.kind, p.micro_usd, p.ms, max(now.confidence, _prior(t, rule)),
                                   hold_micro_usd=p.hold_micro_usd)
        for t, p in zip(above, priced, strict=True)
    ]  # fmt: skip


def _present(tier: Tier, readings: Mapping[str, Reading], rule: Rule) -> float:
    """P(right) of this tier's answer, with all that was said before it."""
    if rule.quality is None or tier.name not in rule.quality.tiers:
        return readings[tier.name].confidence
    return rule.quality.estimates(readings)[rule.quality.tiers.index(tier.name)]


def _priced(tier: Tier, rule: Rule, money: Money) -> Priced:
    most = money.prices.get(tier.name, FREE)
    price = rule.prices.get(tier.name, most)
    kind: Kind = "dearer" if tier.kind == "remote" else "family"
    return Priced(tier.name, price.micro_usd, price.ms, kind, max(price.micro_usd, most.micro_usd))


def _prior(tier: Tier, rule: Rule) -> float:
    calibration = rule.calibrations.get(tier.name)
    if calibration is not None and calibration.accuracy is not None:
        return calibration.accuracy
    return REMOTE_RIGHT if tier.kind == "remote" else LOCAL_RIGHT
