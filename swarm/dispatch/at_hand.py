"""The answers to a step that are at hand: which may be kept, how sure it is, and what can still be asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swarm.dispatch.quality import Reading
from swarm.dispatch.rules import LOCAL, Rule
from swarm.dispatch.ways import Way, asked_as, ways
from swarm.plan.plan import Aim, PlannedStep, Tier

NEVER = 2.0  # a threshold that no confidence reaches

Missing = Mapping[str, str] | frozenset[str]


@dataclass(frozen=True, slots=True)
class Case:
    """What is judged. `last`: the latest answer; `best`: the one that may be kept, from confidence `least` on.

    `right`: P(right) of every answer at hand, in the order of the ladder. `left`: what can still be asked.
    """

    step: PlannedStep
    rule: Rule
    readings: Mapping[str, Reading]
    last: Way
    best: Way
    least: float
    right: Mapping[str, float]
    left: tuple[Way, ...]

    @property
    def sure(self) -> float:
        """How sure the best answer is. The latest is taken at its word, as thresholds are made for that."""
        return self.readings[self.last.name].confidence if self.best == self.last else self.right[self.best.name]

    @property
    def keep(self) -> tuple[str, float]:
        """The likeliest answer at hand, whether or not it is good enough, the dearest of equals; and P(right) of it."""
        name = max(reversed(list(self.right)), key=self.right.__getitem__)
        return name, self.readings[name].confidence if name == self.last.name else self.right[name]


def at_hand(
    step: PlannedStep, asked: tuple[int, bool], readings: Mapping[str, Reading], rule: Rule, aim: Aim,
    missing: Missing, alarmed: bool,
) -> Case:  # fmt: skip
    """What there is to judge. `asked`: the latest, by its place in the ladder and whether it had candidates."""
    known = ways(step)
    said = [way for way in known if way.name in readings]
    last = next(way for way in said if (way.rung, way.samples > 1) == asked)
    right = _right(said, readings, rule)
    best, least = last, threshold(step, last.tier, rule, alarmed=alarmed, samples=last.samples)
    for way in said:
        if way == last or (aim.certified and way.tier.kind in LOCAL):
            continue  # an earlier local answer is no part of what was certified
        its_least = threshold(step, way.tier, rule, alarmed=alarmed, samples=way.samples)
        if its_least <= right[way.name] > right[best.name]:
            best, least = way, its_least
    left = (w for w in known if w.name not in readings and w.name not in missing and w.tier.name not in missing)
    return Case(step, rule, readings, last, best, least, right, tuple(left))


def _right(said: Sequence[Way], readings: Mapping[str, Reading], rule: Rule) -> dict[str, float]:
    """P(right) of each answer with all the others known, as far as labels tell; else by its own confidence."""
    right = {way.name: readings[way.name].confidence for way in said}
    if rule.quality is not None:
        estimates = dict(zip(rule.quality.tiers, rule.quality.estimates(readings), strict=True))
        right |= {name: estimates[name] for name, p in right.items() if p > 0.0 and name in estimates}
    return right  # what has failed its checks stays at 0


def threshold(step: PlannedStep, tier: Tier, rule: Rule, *, alarmed: bool = False, samples: int = 1) -> float:
    """Least confidence at which an answer of this tier, from so many candidates, is kept; above 1: none is."""
    if tier.kind not in LOCAL:
        return step.accept_at
    name = asked_as(tier.name, samples)
    uncertified = samples > 1 and rule.certificate is not None and name not in rule.taught
    distrusted = rule.kept is not None and name not in rule.kept
    return NEVER if alarmed or uncertified or distrusted or rule.accept_at is None else rule.accept_at
