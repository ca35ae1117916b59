"""Which local tiers are believed under a promise: chosen by some labels, shown by others."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

from protocols.answers import Signals
from protocols.control import Calibration
from swarm.dispatch import calibrate
from swarm.dispatch.learnt import Halves, Labels, Seen, Taught, halves
from swarm.dispatch.promise import Promise, promised
from swarm.plan.plan import Aim

RESPLITS = int(os.environ.get("SWARM_PROMISE_RESPLITS", "40"))
ERROR = Aim(error=0.05)
Answer = Callable[[random.Random], tuple[float, bool]]


def honest(dice: random.Random) -> tuple[float, bool]:
    """Right as often as it says."""
    p = dice.choice((0.3, 0.7, 0.995, 0.995))
    return p, dice.random() < p


def deluded(dice: random.Random) -> tuple[float, bool]:
    """Wrong where it is surest, though hardly ever where it is less so: a map that rises cannot tell."""
    p, right = dice.choice(((0.999999, 0.8), (0.999, 1.0), (0.999, 1.0), (0.5, 0.1), (0.5, 0.1)))
    return p, dice.random() < right


def items(n: int, seed: int, **ways: Answer) -> list[dict[str, Seen]]:
    dice = random.Random(seed)
    answered = [{name: answer(dice) for name, answer in ways.items()} for _ in range(n)]
    return [{name: Seen(signals=Signals(p=p), correct=right) for name, (p, right) in row.items()} for row in answered]


def cut(rows: list[dict[str, Seen]]) -> tuple[Halves, dict[str, Calibration]]:
    half = halves(Labels(answers_hash="", rows=tuple(rows)))
    maps = {
        name: calibrate.fit([row[name].signals for row in half.rows], [row[name].correct for row in half.rows])
        for name in half.rows[0]
    }
    return half, {name: fitted for name, fitted in maps.items() if fitted is not None}


def promise(rows: list[dict[str, Seen]], *local: str, strongest: str | None = None, aim: Aim = ERROR) -> Promise:
    half, maps = cut(rows)
    found = promised(local, strongest, aim, maps, half)
    assert found is not None
    return found


def test_a_tier_that_errs_where_it_is_sure_is_left_out() -> None:
    """With it less could be shown; what the other can show stays as if it were alone, wherever it stands."""
    rows = items(360, 3, head=honest, small=deluded)
    both = promise(rows, "head", "small")
    assert both.kept == {"head"} and both.certificate.threshold is not None
    assert both == promise(rows, "head")
    assert promise(rows, "small", "head").kept == {"head"}


def test_a_tier_that_adds_to_what_can_be_shown_is_kept() -> None:
    """Two that are sure of different items keep more than either."""
    rows = items(360, 5, head=honest, small=honest)
    both, alone = promise(rows, "head", "small"), promise(rows, "head")
    assert both.kept == {"head", "small"}
    assert both.certificate.coverage > alone.certificate.coverage + 0.1


def test_where_it_makes_no_difference_the_ladder_stays_as_it_is() -> None:
    """With too few labels for any part of it, all of it is believed and nothing is kept."""
    few = promise(items(40, 3, head=honest, small=deluded), "head", "small")
    assert few.kept == {"head", "small"} and few.certificate.threshold is None


def test_quality_is_promised_by_labels_of_the_strongest_tier() -> None:
    """Its answers are the measure, for the choice and for what is shown; without any there is no promise."""
    rows = items(600, 4, head=honest, small=deluded, strong=lambda dice: (0.9, dice.random() < 0.9))
    found = promise(rows, "head", "small", strongest="strong", aim=Aim(quality=0.95))
    assert "head" in found.kept and found.certificate.coverage > 0.2
    half, _ = cut(items(60, 5, head=honest))
    assert promised(("head",), "strong", Aim(quality=0.95), {}, half) is None


def test_a_tier_without_labels_is_not_believed() -> None:
    """What nobody has seen cannot be shown, wherever it stands in the ladder."""
    assert promise(items(360, 5, head=honest), "head", "small").kept == {"head"}


def test_items_that_only_escalated_do_not_choose() -> None:
    """They are no sample of what will be asked: however many there are, the choice stays what it was."""
    half, maps = cut(items(360, 3, head=honest, small=deluded))
    escalated = [
        Taught(seen=row, propensity=1.0) for row in items(1000, 9, head=lambda dice: (0.3, False), small=honest)
    ]
    found = promised(("head", "small"), None, ERROR, maps, Halves(half.rows, escalated, half.shown, ""))
    assert found is not None and found.kept == {"head"}


def test_the_choice_does_not_look_at_what_shows() -> None:
    """Other truths among the labels that show change the certificate and never who is believed."""
    half, maps = cut(items(360, 3, head=honest, small=deluded))
    worse = [{name: Seen(signals=seen.signals, correct=False) for name, seen in row.items()} for row in half.shown]
    other = promised(("head", "small"), None, ERROR, maps, Halves(half.rows, (), worse, ""))
    assert other is not None and other.kept == {"head"} and other.certificate.threshold is None


def test_the_promise_is_broken_no_oftener_than_promised() -> None:
    """Of so many ladders, each with its own labels, at most 5% (and what chance adds) let through more errors."""
    population = items(4000, 6, head=honest, small=deluded)
    broken = 0
    for seed in range(RESPLITS):
        rows = random.Random(seed).choices(population, k=240)
        half, maps = cut(rows)
        found = promised(("head", "small"), None, ERROR, maps, half)
        assert found is not None
        if found.certificate.threshold is None:
            continue
        kept = []
        for row in population:
            for name in ("head", "small"):
                sure = calibrate.confidence(row[name].signals, maps.get(name))
                if name in found.kept and sure >= found.certificate.threshold:
                    kept.append(row[name].correct)
                    break
        broken += kept.count(False) > 0.05 * len(kept)
    assert broken <= RESPLITS * 0.05 + 3 * (RESPLITS * 0.05 * 0.95) ** 0.5
