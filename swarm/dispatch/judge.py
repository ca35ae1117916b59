"""Is this answer good enough, and if not, what is asked next? Pure: a step's rule, what is known, what money is worth.

Without a stated value of an answer, what can be asked is asked in order until one is sure enough. With a value, asking
on is weighed against its price (`choice`): a sure answer may be worth a dearer one's look, a doubtful one may not. Of
several answers the likeliest to be right is kept, where labels tell; it need not be the dearest tier's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from protocols.tasks import Weighed
from swarm.dispatch.at_hand import NEVER, Case, Missing, at_hand, threshold
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
from swarm.dispatch.ways import Way, ways
from swarm.plan.plan import Aim, PlannedStep

FREE = Prices(0.0, 0.0)
CONFIDENT = "confident enough"
__all__ = ["NEVER", "PLENTY", "Money", "Verdict", "judge", "threshold", "value_of"]

REMOTE_RIGHT, LOCAL_RIGHT = 0.9, 0.7  # P(right) of a tier of which nothing has been measured


@dataclass(frozen=True, slots=True)
class Money:
    """What there is to spend. `left_micro_usd`: None where nothing limits it. `prices`: of tiers, as far as known."""

    left_micro_usd: float | None = None
    shadow_price: float = 0.0
    prices: Mapping[str, Prices] = field(default_factory=dict)


PLENTY = Money()


class Verdict(msgspec.Struct, frozen=True):
    """`keep`: the answer that is the best by now, as `asked_as` names it; `sure`: P(right) of it; `enough`: so sure
    that it may be kept, even where asking on is worth more.

    `rung`: who is asked if it is not accepted, as a place in the ladder, and for how many `samples`; None: nobody, the
    best is kept. `weighed` is empty where nothing was weighed.
    """

    accepted: bool
    rung: int | None
    accept_at: float
    reason: str
    weighed: tuple[Weighed, ...] = ()
    would_change: str = ""
    rule: str = ""
    samples: int = 1
    keep: str = ""
    sure: float = 0.0
    enough: bool = False


def judge(
    step: PlannedStep, rung: int, readings: Mapping[str, Reading], rule: Rule, aim: Aim, money: Money,
    missing: Missing = frozenset(), *, alarmed: bool = False, samples: int = 1,
) -> Verdict:  # fmt: skip
    """Judge the answer of the tier at `rung`, chosen from so many `samples`, and with it those that came before it.

    `readings`: all answers at hand, by `asked_as`. `missing`: what cannot be asked, or has failed, by the same names.
    `alarmed`: see `Watch`.
    """
    if aim.answer_micro_usd is None and rule.quality is None and step.samples == 1:
        return _at_its_word(step, rung, readings, rule, alarmed)
    case = at_hand(step, (rung, samples > 1), readings, rule, aim, missing, alarmed)
    by_right = aim.certified and case.best.tier.kind in LOCAL and case.sure >= case.least  # just what was certified
    if aim.answer_micro_usd is None or by_right:
        found = _in_order(case, aim, alarmed)
    else:
        value = value_of(aim, money)
        now, offers = _offers(case, money, value, alarmed)
        found = replace(_by_value(case, choose(now, offers, value, money.left_micro_usd)), rule=rule.why)
    enough = case.sure >= case.least
    keep, sure = (case.best.name, case.sure) if enough else case.keep
    return replace(found, keep=keep, sure=sure, enough=enough)


def value_of(aim: Aim, money: Money) -> Value:
    """What the aim says a right answer and a second are worth, at the shadow price of the moment."""
    return Value(
        usd=(aim.answer_micro_usd or 0) / 1e6, lambda_=money.shadow_price, usd_per_second=aim.second_micro_usd / 1e6
    )


# --- what is decided --------------------------------------------------------------------------------------------


def _at_its_word(step: PlannedStep, rung: int, readings: Mapping[str, Reading], rule: Rule, alarmed: bool) -> Verdict:
    """The latest answer by its threshold alone: nothing is known that could speak for another, or for asking again."""
    tier = step.ladder[rung]
    sure, least = readings[tier.name].confidence, threshold(step, tier, rule, alarmed=alarmed)
    if sure >= least:
        return Verdict(True, None, least, CONFIDENT, rule=_ground(rule), keep=tier.name, sure=sure, enough=True)
    keep, most = tier.name, 0.0
    for name, reading in readings.items():  # the latest is the last, and of equals the one to keep
        if reading.confidence >= most:
            keep, most = name, reading.confidence
    after, passed = _next(step, rung, rule, alarmed)
    return Verdict(False, after, least, _doubt(sure, least) + passed, rule=_ground(rule), keep=keep, sure=most)


def _in_order(case: Case, aim: Aim, alarmed: bool) -> Verdict:
    if case.sure >= case.least:
        return Verdict(True, None, case.least, _kept(case, CONFIDENT), rule=_ground(case.rule))
    (rung, passed), samples = _next(case.step, case.last.rung, case.rule, alarmed), 1
    if (again := _again(case, aim, alarmed)) is not None:
        rung, passed, samples = again.rung, "", again.samples
    said = _doubt(case.sure, case.least) + passed
    return Verdict(False, rung, case.least, said, rule=_ground(case.rule), samples=samples)


def _next(step: PlannedStep, rung: int, rule: Rule, alarmed: bool) -> tuple[int, str]:
    """Who comes after this rung, and who is passed over for that, as the end of a sentence."""
    to = rung + 1
    while not alarmed and to < len(step.ladder) and step.ladder[to].name in rule.passed:
        to += 1
    over = [tier.name for tier in step.ladder[rung + 1 : to]]
    return to, f"; {' and '.join(over)} passed over, as no such answer is kept" if over else ""


def _ground(rule: Rule) -> str:
    """Where the threshold is from, if not from the file alone."""
    return rule.why if rule.certificate is not None or rule.accept_at is None else ""


def _doubt(sure: float, least: float) -> str:
    return f"confidence {sure:.2f} is below {least:.2f}" if least < NEVER else "no answer of this tier is kept"


def _again(case: Case, aim: Aim, alarmed: bool) -> Way | None:
    """The latest tier once more, for several candidates.

    Where that may be kept; where one after it may, whose confidence was learnt beside what these say; and where all
    that is asked is to be learnt from.
    """
    sampled = next((way for way in case.left if way.rung == case.last.rung), None)
    if case.last.samples > 1 or sampled is None or alarmed:
        return None
    rule = case.rule
    beside = rule.kept is not None and any(w.rung > sampled.rung and w.name in rule.kept for w in ways(case.step))
    taught = sampled.name in rule.taught and rule.accept_at is not None
    keeps = threshold(case.step, sampled.tier, rule, samples=sampled.samples) < NEVER
    return sampled if keeps or (taught and (beside or aim.explore)) else None


def _kept(case: Case, said: str) -> str:
    if case.best == case.last:
        return said
    return f"the answer of {case.best.name} is likelier to be right than that of {case.last.name}"


def _by_value(case: Case, choice: Choice) -> Verdict:
    least, sure = case.least, case.sure
    known = Verdict(False, None, least, "", tuple(map(_told, choice.alternatives)), _would_change(choice, sure))
    paths = [a.path[0] for a in choice.alternatives if a.path]
    stay = choice.action in ("accept", "give_up")
    if stay and sure >= least:
        return replace(known, accepted=True, reason=_kept(case, "nothing dearer is worth its price"))
    person = len(case.step.ladder) - 1 if case.step.ladder[-1].kind == "person" else None
    if stay and least < NEVER and person is None:
        said = f"confidence {sure:.2f} is below {least:.2f}, and nothing dearer is worth its price"
        return replace(known, reason=said)
    if stay:  # it may not be kept: the best that can be asked, else the person at the end
        known = replace(known, reason=f"confidence {sure:.2f} does not reach what is kept", rung=person)
        return _to(case, known, paths[0]) if paths and least >= NEVER else known
    said = f"a gain of {choice.gain:.6f} dollars is expected of asking {choice.tier}"
    return _to(case, replace(known, reason=said), paths[0])


def _to(case: Case, verdict: Verdict, name: str) -> Verdict:
    """The verdict to ask for the answer of this name."""
    way = next(way for way in case.left if way.name == name)
    return replace(verdict, rung=way.rung, samples=way.samples)


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


def _offers(case: Case, money: Money, value: Value, alarmed: bool) -> tuple[Now, list[Offer]]:
    """The best answer at hand, and everything that can be asked with what is expected of it.

    From the labels where there are any of it, else from what such a tier is usually worth. What is below the latest
    answer is only worth a thought where that will not do; of several candidates only labels know what they gain. What
    may not be kept is worth nothing.
    """
    rule, now = case.rule, Now(case.best.name, case.right[case.best.name])
    unsure = case.sure < case.least
    fit = [
        way for way in case.left
        if (way.rung > case.last.rung or unsure)
        and threshold(case.step, way.tier, rule, alarmed=alarmed, samples=way.samples) < NEVER
        and (way.samples == 1 or (unsure and way.tier.name in case.readings and way.name in rule.taught))
    ]  # fmt: skip
    priced = [_priced(way, case, now, money) for way in fit]
    learnt = [] if rule.quality is None else weighed(rule.quality, case.readings, priced, value)[1]
    known = {offer.tier: offer for offer in learnt}
    return now, [
        known.get(p.tier) or Offer(p.tier, p.kind, p.micro_usd, p.ms, max(now.confidence, _prior(way, rule)),
                                   hold_micro_usd=p.hold_micro_usd)
        for way, p in zip(fit, priced, strict=True)
    ]  # fmt: skip


def _priced(way: Way, case: Case, now: Now, money: Money) -> Priced:
    most = money.prices.get(way.name, FREE)
    price = case.rule.prices.get(way.name, most)
    return Priced(way.name, price.micro_usd, price.ms, _kind(way, case, now), max(price.micro_usd, most.micro_usd))


def _kind(way: Way, case: Case, now: Now) -> Kind:
    """A local tier that is right less often than this answer is asked whether it agrees, a better one for its own."""
    if way.samples > 1:
        return "best_of"
    if way.tier.kind not in LOCAL:
        return "dearer"
    return "verify" if _prior(way, case.rule) <= now.confidence else "family"


def _prior(way: Way, rule: Rule) -> float:
    calibration = rule.calibrations.get(way.name)
    if calibration is not None and calibration.accuracy is not None:
        return calibration.accuracy
    return LOCAL_RIGHT if way.tier.kind in LOCAL else REMOTE_RIGHT
