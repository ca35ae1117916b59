"""Standing orders: what labels and the plan's aim make of a step's threshold."""

from __future__ import annotations

import dataclasses
import random

from dispatch_plans import plan, step

from protocols.answers import Signals
from swarm.dispatch.at_hand import NEVER, threshold
from swarm.dispatch.learnt import VERSION, Labels, Learnt, Seen, Source
from swarm.dispatch.rules import Rule, rules, stale
from swarm.plan.plan import Aim, Plan


def made(aim: Aim, *ladder: str) -> Plan:
    planned = dataclasses.replace(step("s", *ladder), answers_hash="now")
    return dataclasses.replace(plan(planned), aim=aim)


def learnt(n: int, *, answers_hash: str = "now", seed: int = 1) -> Learnt:
    """A head that is right as often as it says, and a dearer tier that is right for nine of ten."""
    draw = random.Random(seed)
    rows = []
    for _ in range(n):
        p = draw.choice((0.3, 0.7, 0.999))
        head = Seen(signals=Signals(p=p), correct=draw.random() < p, answer=str(draw.random()), ms=2)
        remote = Seen(signals=Signals(), correct=draw.random() < 0.9, answer="r", micro_usd=500, ms=800)
        rows.append({"head": head, "remote": remote})
    return known(rows, answers_hash)


def known(rows: list[dict[str, Seen]], answers_hash: str = "now") -> Learnt:
    labels = Labels(answers_hash=answers_hash, rows=tuple(rows))
    source = Source(name="l.jsonl", sha256="", items=len(rows))
    return Learnt(version=VERSION, swarm="p", plan_hash="h", program="", made="", data=source, models={},
                  steps={"s": labels})  # fmt: skip


def rule(aim: Aim, labels: Learnt | None, *ladder: str) -> Rule:
    return rules(made(aim, *ladder), labels)["s"]


def test_without_labels_the_file_decides() -> None:
    """`accept_at` stands where nothing has to be shown."""
    assert rule(Aim(), None, "head", "remote").accept_at == 0.8


def test_what_has_to_be_shown_is_not_assumed() -> None:
    """With a target and no labels nothing local is kept, and the remedy is named; code has nothing to show."""
    nothing = rule(Aim(error=0.05), None, "head", "remote")
    assert nothing.accept_at is None and "swarm calibrate" in nothing.why
    assert rule(Aim(error=0.05), None, "code", "person").accept_at == 0.8


def test_labels_certify_a_threshold() -> None:
    """With enough labels the sure answers are kept and the unsure ones are not."""
    certified = rule(Aim(error=0.05), learnt(1200), "head", "remote")
    assert certified.accept_at is not None and 0.7 < certified.accept_at <= 1.0
    assert certified.certificate is not None and certified.certificate.bound <= 0.05
    assert "certified at confidence" in certified.why
    assert certified.prices["remote"].micro_usd == 500
    assert certified.quality is not None and certified.quality.tiers == ("head", "remote")


def test_too_few_labels_say_how_many_are_missing() -> None:
    """Forty labels certify no two percent; the sentence says how many more would be needed."""
    few = rule(Aim(error=0.02), learnt(40), "head", "remote")
    assert few.accept_at is None
    assert "not certified by 20 labels; about" in few.why and "everything escalates" in few.why


def test_quality_is_kept_relative_to_the_dearest_tier() -> None:
    """A share of the strongest tier's quality certifies a lower threshold than nearly all of it."""
    labels = learnt(3000)
    low, high = (rule(Aim(quality=q), labels, "head", "remote") for q in (0.8, 0.97))
    assert low.certificate is not None and high.certificate is not None
    assert low.certificate.coverage > high.certificate.coverage


def mixed(n: int) -> Learnt:
    """A head that is right as often as it says, and a small tier that is wrong where it is surest."""
    dice = random.Random(3)
    rows = []
    for _ in range(n):
        p, q = dice.choice((0.3, 0.7, 0.995, 0.995)), dice.choice((0.999999, 0.999, 0.999, 0.5, 0.5))
        small = dice.random() < {0.999999: 0.8, 0.999: 1.0, 0.5: 0.1}[q]
        head = Seen(signals=Signals(p=p), correct=dice.random() < p)
        rows.append({"head": head, "small": Seen(signals=Signals(p=q), correct=small)})
    return known(rows)


def test_a_tier_that_is_not_believed_is_never_kept_and_the_rule_says_so() -> None:
    """It is passed over on the way up too, unless runs are to learn from what it says."""
    believes = rule(Aim(error=0.05), mixed(360), "head", "small", "person")
    assert (believes.kept, believes.passed) == ({"head"}, {"small"})
    assert believes.why.endswith("; small is never kept: with it less could be shown, by what was learnt")
    planned = step("s", "head", "small", "person")
    assert threshold(planned, planned.ladder[0], believes) == believes.accept_at
    assert threshold(planned, planned.ladder[1], believes) == NEVER
    explores = rule(Aim(error=0.05, explore=0.1), mixed(360), "head", "small", "person")
    assert (explores.kept, explores.passed) == ({"head"}, frozenset())
    first = rule(Aim(error=0.05), mixed(360), "small", "head", "person")
    assert (first.kept, first.passed) == ({"head"}, frozenset()), "the head's confidence was learnt beside its answer"


def test_labels_of_another_pack_or_model_are_not_used() -> None:
    """A step that has changed since is not certified by what it was."""
    old = learnt(1200, answers_hash="then")
    assert rule(Aim(error=0.05), old, "head", "remote").accept_at is None
    assert stale(made(Aim(), "head", "remote"), old) == ["s"]
    assert stale(made(Aim(), "head", "remote"), learnt(3)) == []


def test_the_tier_that_quality_is_measured_by_is_believed() -> None:
    """Where it is a local one: beside itself it loses nothing, so it is neither passed over nor doubted."""
    draw = random.Random(2)
    rows = [
        {"head": Seen(signals=Signals(p=p), correct=draw.random() < p, answer="h"),
         "small": Seen(signals=Signals(p=0.9), correct=draw.random() < 0.9, answer="s")}
        for p in draw.choices((0.3, 0.7, 0.999), k=800)
    ]  # fmt: skip
    found = rule(Aim(quality=0.9), known(rows), "head", "small", "person")
    assert found.kept is not None and "small" in found.kept and not found.passed
    small = made(Aim(), "head", "small").steps[0].ladder[1]
    assert threshold(step("s", "head", "small"), small, found) < NEVER
