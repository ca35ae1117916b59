"""When each step's answers are good enough: the policy's standing orders, made once for a run. Pure.

Made from the plan's aim and from what labels have taught (`learnt`). Without labels a step accepts at its `accept_at`,
and a step for which something has to be shown keeps nothing local: what cannot be shown is not assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from protocols.control import Calibration
from swarm.dispatch import calibrate, quality_fit
from swarm.dispatch.certify import Certificate, certify_ladder
from swarm.dispatch.learnt import Labels, Learnt, Seen
from swarm.dispatch.quality import Labelled, Quality, Reading
from swarm.plan.plan import Aim, Plan, PlannedStep

LOCAL = ("code", "head", "small")


@dataclass(frozen=True, slots=True)
class Prices:
    """What one attempt at a tier costs on average."""

    micro_usd: float
    ms: float


@dataclass(frozen=True, slots=True)
class Rule:
    """One step's. `accept_at`: least confidence at which a local answer is kept, None: none is. `why` says from what.

    `calibrations`, `prices` are by tier; `quality` is None where nothing was learnt about what dearer tiers gain.
    """

    accept_at: float | None
    why: str
    certificate: Certificate | None = None
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    quality: Quality | None = None
    prices: Mapping[str, Prices] = field(default_factory=dict)


def rules(plan: Plan, learnt: Learnt | None) -> dict[str, Rule]:
    """By step."""
    return {step.name: _rule(step, plan.aim, _labels(step, learnt)) for step in plan.steps}


def stale(plan: Plan, learnt: Learnt) -> list[str]:
    """Steps that were calibrated as they are no longer: another pack, ladder or model."""
    return [
        s.name for s in plan.steps if s.name in learnt.steps and learnt.steps[s.name].answers_hash != s.answers_hash
    ]


def _labels(step: PlannedStep, learnt: Learnt | None) -> Labels | None:
    labels = learnt.steps.get(step.name) if learnt is not None else None
    return labels if labels is not None and labels.rows and labels.answers_hash == step.answers_hash else None


def _rule(step: PlannedStep, aim: Aim, labels: Labels | None) -> Rule:
    free = all(tier.kind in ("code", "person") for tier in step.ladder)  # code answers or declines: nothing to show
    if labels is None:
        if aim.certified and not free:
            return Rule(None, "nothing is certified without labels; run `swarm calibrate`")
        return Rule(step.accept_at, "as the file says")
    local = [tier.name for tier in step.ladder if tier.kind in LOCAL]
    if not aim.certified or free:
        return Rule(step.accept_at, "as the file says", None, *_taught(step, labels.rows))
    # What the maps have learnt from must not be what shows that they hold.
    taught, judged = labels.rows[::2], labels.rows[1::2]
    calibrations, quality, prices = _taught(step, taught)
    certificate = _certificate(aim, local, calibrations, judged)
    return Rule(certificate.threshold, told(certificate), certificate, calibrations, quality, prices)


def _certificate(
    aim: Aim, local: Sequence[str], calibrations: Mapping[str, Calibration], rows: Sequence[Mapping[str, Seen]]
) -> Certificate:
    said = [
        [(calibrate.confidence(row[t].signals, calibrations.get(t)), row[t].correct) for t in local if t in row]
        for row in rows
    ]
    if aim.error is not None:
        return certify_ladder(said, aim.error, aim.level)
    assert aim.quality is not None
    strong = [list(row.values())[-1].correct for row in rows]
    return certify_ladder(said, aim.quality, aim.level, strong=strong)


def told(certificate: Certificate) -> str:
    """A certificate as a sentence, with what is missing where it shows nothing."""
    shown = f"error at most {certificate.error:.3g} with probability {certificate.level:.3g}"
    if certificate.threshold is not None:
        seen = f"{certificate.errors} wrong of {certificate.accepted} kept"
        return f"{shown}: certified at confidence {certificate.threshold:.3f} by {certificate.n} labels ({seen})"
    if certificate.missing is None:
        return f"{shown}: not certified, and more labels would not help at the error seen; everything escalates"
    more = 2 * certificate.missing  # the other half goes to the calibration
    return f"{shown}: not certified by {certificate.n} labels; about {more} more would be needed; everything escalates"


def _taught(
    step: PlannedStep, rows: Sequence[Mapping[str, Seen]]
) -> tuple[dict[str, Calibration], Quality | None, dict[str, Prices]]:
    tiers = [tier.name for tier in step.ladder if any(tier.name in row for row in rows)]
    calibrations = {}
    for tier in tiers:
        seen = [row[tier] for row in rows if tier in row]
        if (fitted := calibrate.fit([s.signals for s in seen], [s.correct for s in seen])) is not None:
            calibrations[tier] = fitted
    labelled = [_labelled(row, calibrations) for row in rows]
    quality = quality_fit.fit(tiers, labelled) if len(rows) >= quality_fit.FEWEST else None
    prices = {
        tier: Prices(fmean(r[tier].micro_usd for r in rows if tier in r), fmean(r[tier].ms for r in rows if tier in r))
        for tier in tiers
    }
    return calibrations, quality, prices


def _labelled(row: Mapping[str, Seen], calibrations: Mapping[str, Calibration]) -> Labelled:
    readings = {t: Reading(calibrate.confidence(s.signals, calibrations.get(t)), s.answer) for t, s in row.items()}
    return Labelled(readings, {t: s.correct for t, s in row.items()})
