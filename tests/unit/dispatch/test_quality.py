"""Expected quality before and after each tier: learnt from labels, near the tiers' accuracies where they are few."""

from __future__ import annotations

import random

import msgspec
import pytest

from swarm.dispatch.choice import Value, choose
from swarm.dispatch.logistic import sigmoid
from swarm.dispatch.offers import Priced, weighed
from swarm.dispatch.quality import Labelled, Quality, Reading
from swarm.dispatch.quality_fit import fit

TIERS = ("small", "middle", "strong")
STRENGTH = {"small": 0.0, "middle": 1.0, "strong": 2.5}  # log-odds of being right on a task of no special difficulty


def drawn(n: int, seed: int = 7, tiers: tuple[str, ...] = TIERS) -> list[Labelled]:
    """Tasks whose difficulty all tiers share, and of which each tier knows something: its confidence."""
    dice = random.Random(seed)
    return [_task(dice, tiers) for _ in range(n)]


def _task(dice: random.Random, tiers: tuple[str, ...]) -> Labelled:
    difficulty = dice.gauss(0, 1.5)
    readings, right = {}, {}
    for tier in tiers:
        p = sigmoid(STRENGTH[tier] - difficulty)
        right[tier] = dice.random() < p
        stated = sigmoid(STRENGTH[tier] - difficulty + dice.gauss(0, 0.7))
        readings[tier] = Reading(stated, "gold" if right[tier] else f"wrong {dice.randrange(3)}")
    return Labelled(readings, right)


@pytest.fixture(scope="module")
def fitted() -> Quality:
    return fit(TIERS, drawn(300))


def loss(quality: Quality, rows: list[Labelled]) -> float:
    """Brier score of P(small right) from its reading alone."""
    said = [(quality.estimates({"small": r.readings["small"]})[0], r.right["small"]) for r in rows]
    return sum((p - right) ** 2 for p, right in said) / len(said)


@pytest.mark.parametrize("labels", [30, 300])
def test_labels_make_estimates_better_than_the_accuracies(labels: int) -> None:
    """Already 30 of them."""
    unseen = drawn(500, seed=8)
    base = sum(r.right["small"] for r in unseen) / len(unseen)
    assert loss(fit(TIERS, drawn(labels)), unseen) < base * (1 - base)


def test_before_any_answer_a_tier_is_worth_its_accuracy(fitted: Quality) -> None:
    """Nothing else is known then."""
    assert fitted.estimates({}) == pytest.approx(fitted.priors, abs=0.02)
    assert fitted.kept({}, fitted.estimates({})) is None


def test_the_gain_of_a_strong_tier_is_learnt(fitted: Quality) -> None:
    """It is large where the weak one is unsure, and small where it is sure."""

    def gain(stated: float) -> float:
        known = fitted.estimates({"small": Reading(stated, "a")})
        return known[2] - known[0]

    assert gain(0.3) > 0.3
    assert 0.0 <= gain(0.97) < 0.1


def test_agreement_of_two_tiers_raises_what_their_answer_is_worth(fitted: Quality) -> None:
    """The same confidences, once with the same answer, once with another."""
    agreed, apart = (
        fitted.estimates({"small": Reading(0.6, "a"), "middle": Reading(0.7, other)})[1] for other in ("a", "b")
    )
    assert agreed > apart + 0.1


def test_the_weak_answer_is_kept_where_the_strong_one_would_be_worse() -> None:
    """A tier that breaks right answers loses against a sure cheaper one, and promises no gain."""
    dice = random.Random(3)
    rows = []
    for _ in range(200):
        right = dice.random() < 0.9
        rows.append(Labelled({"small": Reading(0.9), "strong": Reading(0.6)}, {"small": right, "strong": not right}))
    quality = fit(("small", "strong"), rows)
    known = rows[0].readings
    assert quality.kept(known, quality.estimates(known)) == 0
    before = quality.estimates({"small": known["small"]})
    assert before[1] - before[0] < 0.02


def test_below_the_fewest_labels_the_accuracies_are_all_there_is() -> None:
    """Drawn to one half as by four labels."""
    rows = [Labelled({"small": Reading(0.9)}, {"small": True})] * 8
    quality = fit(("small", "strong"), rows)
    assert quality.maps == {}
    assert quality.estimates({"small": Reading(0.2)}) == pytest.approx(((8 + 2) / 12, (8 + 2) / 12))
    assert quality.priors[1] == 0.5


def test_tiers_never_seen_together_are_judged_by_the_dearer_alone() -> None:
    """Labels of the middle tier without the small one say what its answer is worth beside it too."""
    rows = drawn(100, tiers=("small",)) + drawn(100, seed=9, tiers=("middle",))
    quality = fit(TIERS, rows)
    readings = {"small": Reading(0.5, "a"), "middle": Reading(0.8, "a")}
    assert quality.estimates(readings)[1] == quality.estimates({"middle": readings["middle"]})[1]


def test_an_outlook_has_the_expected_quality_as_its_mean(fitted: Quality) -> None:
    """And says of a tier that knows more how far its confidence will spread."""
    known = {"small": Reading(0.5, "a")}
    outlook = fitted.outlook(known, 2, 0.8)
    assert sum(outlook) / len(outlook) == pytest.approx(0.8, abs=1e-3)
    assert min(outlook) < 0.7
    assert max(outlook) > 0.9


def test_what_was_fitted_survives_json(fitted: Quality) -> None:
    """It is kept in a file beside the swarm's lock."""
    assert msgspec.json.decode(msgspec.json.encode(fitted), type=Quality) == fitted


def test_fitting_twice_is_fitting_once(fitted: Quality) -> None:
    """The folds are drawn by the seed."""
    assert fit(TIERS, drawn(300)) == fitted


def test_offers_carry_what_the_choice_needs(fitted: Quality) -> None:
    """The better of two unsure answers is kept, and the tier that may follow is offered at its price."""
    readings = {"small": Reading(0.3, "a"), "middle": Reading(0.4, "b")}
    now, offers = weighed(fitted, readings, [Priced("strong", 900.0), Priced("unheard of", 1.0)], Value(0.05))
    assert now is not None and now.tier == "middle"
    assert [o.tier for o in offers] == ["strong"]
    assert offers[0].quality > now.confidence
    assert choose(now, offers, Value(0.05)).tier == "strong"


def test_the_cheaper_the_way_on_the_surer_an_answer_must_be(fitted: Quality) -> None:
    """The chance that the middle tier's answer is accepted rises with the price of the strong one."""
    chances = []
    for price in (100.0, 40_000.0):
        priced = [Priced("middle", 50.0), Priced("strong", price)]
        chances.append(weighed(fitted, {}, priced, Value(0.05))[1][0].accept)
    assert chances[0] < chances[1]
