"""Standing orders from what runs have taught: by weights where something is learnt, by a plain sample where shown."""

from __future__ import annotations

import dataclasses
import random

from dispatch_plans import plan, step

from protocols.answers import Signals
from swarm.dispatch.learnt import VERSION, Labels, Learnt, Seen, Taught
from swarm.dispatch.rules import Rule, rules
from swarm.plan.plan import Aim


def ruled(aim: Aim, taught: list[Taught], rows: tuple[dict[str, Seen], ...] = ()) -> Rule:
    made = dataclasses.replace(plan(dataclasses.replace(step("s", "head", "remote"), answers_hash="now")), aim=aim)
    labels = Labels(answers_hash="now", rows=rows, taught=tuple(taught), teacher="remote")
    learnt = Learnt(version=VERSION, swarm="p", plan_hash="h", program="", made="", models={}, steps={"s": labels})
    return rules(made, learnt)["s"]


def lessons(n: int, *, plain: bool = True, kept_seen: float = 1.0, seed: int = 1) -> list[Taught]:
    """Of a head that is right as often as it says; of answers that it kept, at 0.999, so large a share was seen."""
    dice, found = random.Random(seed), []
    for _ in range(n):
        p = dice.choice((0.3, 0.7, 0.999))
        chance = kept_seen if p == 0.999 else 1.0
        if dice.random() < chance:
            seen = Seen(signals=Signals(p=p), correct=dice.random() < p)
            found.append(
                Taught(seen={"head": seen}, propensity=chance, plain=plain and dice.random() * chance < kept_seen)
            )
    return found


def test_runs_certify_by_their_teachers_word() -> None:
    """A run in which everything escalated is a plain sample; the sentence says that its labels may err."""
    rule = ruled(Aim(error=0.05), lessons(1200))
    assert rule.accept_at is not None and 0.7 < rule.accept_at <= 1.0
    assert "by the word of tier 'remote', which may err: certified at confidence" in rule.why
    assert rule.taught == {"head"}


def test_without_a_plain_sample_runs_certify_nothing() -> None:
    """Where some answers could not be seen nothing is promised about all, and the remedy is named."""
    rule = ruled(Aim(error=0.05), lessons(1200, plain=False))
    assert rule.accept_at is None and "set escalation.explore" in rule.why


def test_true_labels_show_alone() -> None:
    """What runs have taught helps to learn the confidence; the promise goes by the truth."""
    rows = tuple(item.seen for item in lessons(40, seed=5))
    rule = ruled(Aim(error=0.02), lessons(1200), rows)
    assert rule.accept_at is None and "not certified by 20 labels" in rule.why and "by the word" not in rule.why
    assert rule.calibrations["head"].n_labels == 1220


def test_answers_that_were_seldom_seen_count_for_those_that_were_not() -> None:
    """The accuracy that is learnt is that of all answers, of which mostly unsure ones were seen."""
    rule = ruled(Aim(), lessons(6000, kept_seen=0.1))
    accuracy = rule.calibrations["head"].accuracy
    assert accuracy is not None and abs(accuracy - (0.3 + 0.7 + 0.999) / 3) < 0.03
