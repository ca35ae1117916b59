"""When each step's answers are good enough: the policy's standing orders, made once for a run. Pure.

Made from the plan's aim and from what labels have taught (`learnt`). Without labels a step accepts at its `accept_at`,
and a step for which something has to be shown keeps nothing local: what cannot be shown is not assumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from statistics import fmean

import msgspec

from protocols.answers import Signals
from protocols.control import Calibration, TierKind
from swarm.dispatch import calibrate, quality_fit
from swarm.dispatch.certify import Certificate
from swarm.dispatch.learnt import Halves, Labels, Learnt, Seen, Taught, halves, pooled
from swarm.dispatch.promise import Promise, promised
from swarm.dispatch.quality import Labelled, Quality, Reading
from swarm.dispatch.ways import asked_as, ways
from swarm.plan.plan import Aim, Plan, PlannedStep, Tier

LOCAL = ("code", "head", "small")
REMOTE_PRIOR = 0.9  # confidence in a remote answer that passes its checks, as long as nothing has been measured
LEAST = 1e-6  # a threshold lies above 0: what failed its checks is never kept


@dataclass(frozen=True, slots=True)
class Prices:
    """What one attempt at a tier costs on average."""

    micro_usd: float
    ms: float


@dataclass(frozen=True, slots=True)
class Rule:
    """One step's. `accept_at`: least confidence at which a local answer is kept, None: none is. `why` says from what.

    `calibrations`, `prices` are by way; `quality` is None where nothing was learnt about what dearer tiers gain.
    `kept`: local ways whose answers may be kept at all, by what was learnt; None: every one. `passed`: tiers that need
    not be asked on the way up, as nothing of theirs is kept and nothing that is comes after them.
    """

    accept_at: float | None
    why: str
    certificate: Certificate | None = None
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    quality: Quality | None = None
    prices: Mapping[str, Prices] = field(default_factory=dict)
    taught: frozenset[str] = frozenset()  # ways of which labels tell; their confidence is by `calibrations` alone
    kept: frozenset[str] | None = None
    passed: frozenset[str] = frozenset()


def rules(plan: Plan, learnt: Learnt | None, models: Mapping[str, str] | None = None) -> dict[str, Rule]:
    """By step. `models`: tier -> sha256 of the weights that answer in this run, where they are known."""
    return {step.name: _rule(step, plan.aim, _labels(step, learnt, models or {})) for step in plan.steps}


def digest(rules: Mapping[str, Rule]) -> str:
    """What decisions are made by, as a hash: two programs may make other thresholds of the same labels."""
    orders = [[step, r.accept_at, sorted(r.kept or ()), sorted(r.passed)] for step, r in sorted(rules.items())]
    return hashlib.sha256(msgspec.json.encode(orders)).hexdigest()


def stale(plan: Plan, learnt: Learnt, models: Mapping[str, str] | None = None) -> list[str]:
    """Steps that were calibrated as they are no longer: another pack, ladder, input or model."""
    return [s.name for s in plan.steps if s.name in learnt.steps and not _fits(s, learnt, models or {})]


def believed(
    rule: Rule | None, tier: Tier, signals: Signals, other: Calibration | None = None, samples: int = 1
) -> float:
    """P(right) of a tier's answer, chosen from so many `samples`, under a rule.

    `other`: the map to use where no label tells of this tier; it knows single answers only.
    """
    name = asked_as(tier.name, samples)
    if rule is not None and name in rule.taught:
        return _believed(tier.kind, signals, rule.calibrations.get(name))
    return _believed(tier.kind, signals, other if samples == 1 else None)


def _believed(kind: TierKind, signals: Signals, calibration: Calibration | None) -> float:
    if calibration is None and kind == "remote" and signals.p is None and not signals.checks_failed:
        return REMOTE_PRIOR
    return calibrate.confidence(signals, calibration)


def _labels(step: PlannedStep, learnt: Learnt | None, models: Mapping[str, str]) -> Labels | None:
    labels = learnt.steps.get(step.name) if learnt is not None else None
    known = labels is not None and (labels.rows or labels.taught)
    return labels if known and learnt and _fits(step, learnt, models) else None


def _fits(step: PlannedStep, learnt: Learnt, models: Mapping[str, str]) -> bool:
    mine = [tier.name for tier in step.ladder if tier.name in models and tier.name in learnt.models]
    same = all(learnt.models[name] == models[name] for name in mine)
    return same and learnt.steps[step.name].answers_hash == step.answers_hash


def _rule(step: PlannedStep, aim: Aim, labels: Labels | None) -> Rule:
    free = all(tier.kind in ("code", "person") for tier in step.ladder)  # code answers or declines: nothing to show
    if labels is None:
        if aim.certified and not free:
            return Rule(None, "nothing is certified without labels; run `swarm calibrate`")
        return Rule(step.accept_at, "as the file says")
    names = frozenset(name for row in pooled(labels.rows, labels.taught)[0] for name in row)
    if not aim.certified or free:
        return Rule(step.accept_at, "as the file says", None, *_taught(step, labels.rows, labels.taught), names)
    # What the maps have learnt from must not be what shows that they hold.
    half = halves(labels)
    calibrations, quality, prices = _taught(step, half.rows, half.taught)
    promise = _promise(step, aim, calibrations, half)
    if promise is None and aim.error is not None:
        return Rule(None, "nothing is certified by what runs have taught, as not every answer could be seen; set "
                          "escalation.explore, or run `swarm calibrate --data`")  # fmt: skip
    if promise is None:
        return Rule(None, "nothing is certified without labels of the strongest tier; run `swarm calibrate --paid`")
    certificate, kept = promise.certificate, promise.kept | _measure(step, aim)
    least = None if certificate.threshold is None else max(LEAST, certificate.threshold)
    why = told(certificate, half.teacher) + _left_out(step, kept, certificate)
    passed = frozenset() if least is None or aim.explore else _passed(step, kept)  # what explores wants all they say
    return Rule(least, why, certificate, calibrations, quality, prices, names, kept, passed)


def _promise(step: PlannedStep, aim: Aim, calibrations: Mapping[str, Calibration], half: Halves) -> Promise | None:
    """None where a quality is asked for and no label tells of the strongest tier."""
    strongest = _strongest(step) if aim.error is None else None
    local = [way.name for way in ways(step) if way.tier.kind in LOCAL and way.tier is not strongest]
    return promised(local, strongest.name if strongest is not None else None, aim, calibrations, half)


def _strongest(step: PlannedStep) -> Tier:
    return [tier for tier in step.ladder if tier.kind != "person"][-1]


def _measure(step: PlannedStep, aim: Aim) -> frozenset[str]:
    """The local tier that quality is measured by, if it is one: beside itself it loses nothing."""
    strongest = _strongest(step)
    return frozenset({strongest.name} if aim.error is None and strongest.kind in LOCAL else ())


def _passed(step: PlannedStep, kept: Set[str]) -> frozenset[str]:
    """Local tiers between the last that is believed and the first that is not local.

    Those before a believed one are asked: its confidence was learnt beside their answers.
    """
    last = max((way.rung for way in ways(step) if way.name in kept), default=-1)
    dearer = next((rung for rung, tier in enumerate(step.ladder) if tier.kind not in LOCAL), 0)
    return frozenset(tier.name for tier in step.ladder[last + 1 : dearer])


def _left_out(step: PlannedStep, kept: Set[str], certificate: Certificate) -> str:
    """The local ways that are not believed, and why, as the end of a sentence."""
    names = [way.name for way in ways(step) if way.tier.kind in LOCAL and way.name not in kept]
    if not names or certificate.threshold is None:
        return ""
    verb, them = ("is", "it") if len(names) == 1 else ("are", "them")
    return f"; {' and '.join(names)} {verb} never kept: with {them} less could be shown, by what was learnt"


def told(certificate: Certificate, teacher: str = "") -> str:
    """A certificate as a sentence, with what is missing where it shows nothing. `teacher`: see `learnt.Halves`."""
    shown = f"error at most {certificate.error:.3g} with probability {certificate.level:.3g}"
    if teacher:
        shown += f" by the word of tier {teacher!r}, which may err"
    if certificate.threshold is not None:
        seen = f"{certificate.errors} wrong of {certificate.accepted} kept"
        return f"{shown}: certified at confidence {certificate.threshold:.3f} by {certificate.n} labels ({seen})"
    if certificate.missing is None:
        return f"{shown}: not certified, and more labels would not help at the error seen; everything escalates"
    more = 2 * certificate.missing  # the other half goes to the calibration
    return f"{shown}: not certified by {certificate.n} labels; about {more} more would be needed; everything escalates"


def _taught(
    step: PlannedStep, rows: Sequence[dict[str, Seen]], taught: Sequence[Taught]
) -> tuple[dict[str, Calibration], Quality | None, dict[str, Prices]]:
    """Confidence from all labels; what a dearer tier gains, and what tiers cost, from the true ones alone."""
    known = {way.name: way.tier.kind for way in ways(step)}
    tiers = [name for name in known if any(name in row for row in rows)]
    calibrations = {}
    for tier in known:
        seen = [(row[tier], n) for row, n in zip(*pooled(rows, taught), strict=True) if tier in row]
        counts = [n for _, n in seen] if taught else None
        if (fitted := calibrate.fit([s.signals for s, _ in seen], [s.correct for s, _ in seen], counts)) is not None:
            calibrations[tier] = fitted
    labelled = [_labelled(row, known, calibrations) for row in rows]
    quality = quality_fit.fit(tiers, labelled) if len(rows) >= quality_fit.FEWEST else None
    prices = {
        tier: Prices(fmean(r[tier].micro_usd for r in rows if tier in r), fmean(r[tier].ms for r in rows if tier in r))
        for tier in tiers
    }
    return calibrations, quality, prices


def _labelled(
    row: Mapping[str, Seen], kinds: Mapping[str, TierKind], calibrations: Mapping[str, Calibration]
) -> Labelled:
    readings = {t: Reading(_believed(kinds[t], s.signals, calibrations.get(t)), s.answer) for t, s in row.items()}
    return Labelled(readings, {t: s.correct for t, s in row.items()})
