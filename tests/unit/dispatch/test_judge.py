"""The judge: whether an answer is kept, and who is asked next if not."""

from __future__ import annotations

import dataclasses

import pytest
from dispatch_plans import step

from swarm.dispatch.certify import Certificate
from swarm.dispatch.judge import NEVER, Money, Verdict, judge
from swarm.dispatch.quality import Quality, Reading
from swarm.dispatch.rules import Prices, Rule
from swarm.plan.plan import Aim

STATED = Rule(0.8, "as the file says")
CERTIFIED = Rule(0.8, "certified", Certificate(0.8, 0.05, 0.95, 400, 200, 2, 0.03, 0.5, 0))
WORTH = Aim(answer_micro_usd=10_000)  # a cent
ORDER, PLENTY, NONE = Aim(), Money(), frozenset[str]()
PRICES = {"remote": Prices(1_000, 500.0)}  # a tenth of a cent


def verdict(
    confidence: float, *tiers: str, rule: Rule = STATED, aim: Aim = ORDER, money: Money = PLENTY, rung: int = 0,
    missing: frozenset[str] = NONE, alarmed: bool = False, samples: int = 1,
) -> Verdict:  # fmt: skip
    planned = step("s", *tiers, samples=samples)
    readings = {planned.ladder[rung].name: Reading(confidence, "x")}
    return judge(planned, rung, readings, rule, aim, money, missing, alarmed=alarmed)


def test_without_a_stated_value_tiers_are_asked_in_order() -> None:
    """From the threshold on an answer is kept; below it the next tier is asked, and what would do is said."""
    kept, not_kept = verdict(0.8, "head", "remote"), verdict(0.79, "head", "remote")
    assert (kept.accepted, kept.rung, kept.weighed) == (True, None, ())
    assert (not_kept.accepted, not_kept.rung) == (False, 1)
    assert not_kept.reason == "confidence 0.79 is below 0.80"


@pytest.mark.parametrize("confidence", [0.5, 1.0])
def test_what_is_not_certified_is_not_kept(confidence: float) -> None:
    """Without a certificate, or after its alarm, no local answer is sure enough; a paid one still may be."""
    nothing = Rule(None, "not certified")
    for seen in (
        verdict(confidence, "head", "remote", rule=nothing),
        verdict(confidence, "head", "remote", alarmed=True),
    ):
        assert (seen.accepted, seen.rung, seen.accept_at) == (False, 1, NEVER)
    assert verdict(0.9, "head", "remote", rule=nothing, rung=1).accepted


def test_a_doubtful_answer_is_worth_a_look() -> None:
    """Where a right answer is worth ten times what the dearer tier costs, half a chance to be wrong pays for it."""
    seen = verdict(0.5, "head", "remote", aim=WORTH, money=Money(prices=PRICES))
    assert (seen.accepted, seen.rung) == (False, 1)
    assert seen.weighed[0].action == "escalate"
    assert "confidence" in seen.would_change


def test_a_sure_answer_may_still_be_worth_a_look_and_a_doubtful_one_may_not() -> None:
    """Above the threshold the gain decides too; below it nothing is asked that does not pay."""
    dear = Money(prices={"remote": Prices(9_000, 500.0)})
    kept = verdict(0.5, "head", "remote", aim=WORTH, money=dear)
    assert (kept.accepted, kept.rung) == (False, None), "the best is kept, flagged"
    assert verdict(0.85, "head", "remote", aim=WORTH, money=dear).accepted
    precious = Aim(answer_micro_usd=1_000_000)
    assert verdict(0.85, "head", "remote", aim=precious, money=Money(prices=PRICES)).rung == 1


def test_a_scarce_budget_makes_the_same_look_too_dear() -> None:
    """The shadow price counts like the price; what does not fit the money left is not offered at all."""
    assert verdict(0.5, "head", "remote", aim=WORTH, money=Money(shadow_price=5.0, prices=PRICES)).rung is None
    assert verdict(0.5, "head", "remote", aim=WORTH, money=Money(left_micro_usd=999, prices=PRICES)).rung is None
    assert verdict(0.5, "head", "remote", aim=WORTH, money=Money(left_micro_usd=1_000, prices=PRICES)).rung == 1


def test_a_hopeless_answer_skips_the_tier_between() -> None:
    """A tier that would hardly be believed is passed over for the one that would."""
    money = Money(prices={"small": Prices(900, 300.0), "remote": Prices(1_000, 500.0)})
    assert verdict(0.1, "head", "small", "remote", aim=WORTH, money=money).rung == 2


def test_a_skipped_tier_is_worth_a_thought_only_where_the_answer_will_not_do() -> None:
    """After a dear answer that is sure, the tier below it is no alternative; after one that is not, it is."""
    seen = [verdict(sure, "head", "small", "remote", aim=WORTH, rung=2) for sure in (0.9, 0.6)]
    assert [[w.path for w in each.weighed if w.path] for each in seen] == [[], [("head",), ("small",)]]
    assert (seen[0].accepted, seen[1].rung) == (True, 0)


def test_a_local_tier_is_asked_for_its_agreement_or_for_its_answer() -> None:
    """One that is right less often than the answer at hand can only confirm it; what a better one says is kept."""
    seen = [verdict(sure, "head", "small", aim=WORTH) for sure in (0.75, 0.65)]
    assert [{w.action for w in each.weighed if w.path} for each in seen] == [{"verify"}, {"family"}]


def test_candidates_are_weighed_where_labels_tell_what_they_gain() -> None:
    """Without labels nothing is expected of drawing several, and none are; with them they have their price."""
    quality = Quality(("small", "small*", "remote"), (0.6, 0.95, 0.9), {})
    known = Rule(0.8, "as the file says", quality=quality, prices={"small*": Prices(0.0, 900.0)},
                 taught=frozenset({"small", "small*"}))  # fmt: skip
    money = Money(prices=PRICES)
    seen = [verdict(0.6, "small", "remote", rule=rule, aim=WORTH, money=money, samples=4) for rule in (STATED, known)]
    assert [any(w.action == "best_of" for w in each.weighed) for each in seen] == [False, True]
    assert [(each.rung, each.samples) for each in seen] == [(1, 1), (0, 4)]


def test_candidates_that_nothing_was_certified_for_are_not_drawn() -> None:
    """Where an error is promised, their answer could not be kept; where labels have shown it, it can."""
    shown = dataclasses.replace(CERTIFIED, taught=frozenset({"small", "small*"}))
    seen = [verdict(0.6, "small", "remote", rule=r, aim=Aim(error=0.05), samples=4) for r in (CERTIFIED, shown)]
    assert [(each.rung, each.samples) for each in seen] == [(1, 1), (0, 4)]
    alarmed = verdict(0.6, "small", "remote", rule=shown, aim=Aim(error=0.05), samples=4, alarmed=True)
    assert (alarmed.rung, alarmed.samples) == (1, 1)


def test_tiers_of_which_nothing_is_kept_are_passed_over() -> None:
    """The next after them is asked, and the reason says so; after an alarm all are asked, as in a run that teaches."""
    believes = dataclasses.replace(CERTIFIED, kept=frozenset({"head"}), passed=frozenset({"small"}))
    seen = verdict(0.6, "head", "small", "remote", rule=believes, aim=Aim(error=0.05))
    assert seen.rung == 2 and seen.reason.endswith("; small passed over, as no such answer is kept")
    many = verdict(0.6, "head", "small", "remote", rule=believes, aim=Aim(error=0.05), samples=4)
    assert (many.rung, many.samples) == (2, 1)
    assert verdict(0.6, "head", "small", "remote", rule=believes, aim=Aim(error=0.05), alarmed=True).rung == 1
    asked = verdict(1.0, "head", "small", "remote", rule=believes, aim=Aim(error=0.05), rung=1)
    assert (asked.accepted, asked.accept_at, asked.reason) == (False, NEVER, "no answer of this tier is kept")


def test_candidates_may_be_kept_where_a_single_answer_may_not() -> None:
    """They are drawn then, however sure the single answer is."""
    believes = dataclasses.replace(CERTIFIED, kept=frozenset({"small*"}), taught=frozenset({"small", "small*"}))
    seen = verdict(1.0, "small", "remote", rule=believes, aim=Aim(error=0.05), samples=4)
    assert (seen.accepted, seen.rung, seen.samples) == (False, 0, 4)


def test_candidates_that_are_not_kept_are_drawn_for_what_they_teach() -> None:
    """In a run that explores, as else the items that escalate would not show all that the kept ones show."""
    distrusts = dataclasses.replace(CERTIFIED, kept=frozenset({"small"}), taught=frozenset({"small", "small*"}))
    for explore, drawn in ((0.0, (1, 1)), (0.1, (0, 4))):
        aim = Aim(error=0.05, explore=explore)
        seen = verdict(0.6, "small", "remote", rule=distrusts, aim=aim, samples=4)
        assert (seen.rung, seen.samples) == drawn


def test_candidates_are_drawn_where_a_later_answer_is_read_beside_them() -> None:
    """A believed tier's confidence was learnt with what they say."""
    beside = dataclasses.replace(CERTIFIED, kept=frozenset({"head"}), taught=frozenset({"small", "small*", "head"}))
    seen = verdict(0.6, "small", "head", "remote", rule=beside, aim=Aim(error=0.05), samples=4)
    assert (seen.rung, seen.samples) == (0, 4)


def test_what_may_not_be_kept_is_not_weighed() -> None:
    """A tier that is not believed gains nothing, whatever its labels say."""
    believes = dataclasses.replace(CERTIFIED, kept=frozenset({"head"}), passed=frozenset({"small"}))
    aim = Aim(error=0.05, answer_micro_usd=10_000)
    money = Money(prices=PRICES)
    weighed = [
        verdict(0.6, "head", "small", "remote", rule=r, aim=aim, money=money).weighed for r in (CERTIFIED, believes)
    ]
    assert [any("small" in w.path for w in each) for each in weighed] == [True, False]


def test_an_earlier_local_answer_is_no_part_of_what_was_certified() -> None:
    """Though labels find it likelier, the paid answer is judged: the certificate speaks of answers kept at once."""
    quality = Quality(("head", "remote"), (0.95, 0.6), {})
    readings = {"head": Reading(0.6, "x"), "remote": Reading(0.85, "y")}
    planned = step("s", "head", "remote")
    free = judge(planned, 1, readings, dataclasses.replace(STATED, quality=quality), ORDER, PLENTY)
    certified = judge(planned, 1, readings, dataclasses.replace(CERTIFIED, quality=quality), Aim(error=0.05), PLENTY)
    assert [(v.accepted, v.keep) for v in (free, certified)] == [(True, "head"), (True, "remote")]


def test_what_failed_its_checks_is_never_likelier() -> None:
    """Labels of such a tier's other answers do not speak for it."""
    quality = Quality(("head", "remote"), (0.95, 0.6), {})
    readings = {"head": Reading(0.0, "x"), "remote": Reading(0.7, "y")}
    rule = dataclasses.replace(STATED, quality=quality)
    seen = judge(step("s", "head", "remote"), 1, readings, rule, ORDER, PLENTY)
    assert (seen.accepted, seen.keep) == (False, "remote")


def test_a_person_at_the_end_gets_what_may_not_be_kept() -> None:
    """Where nothing pays and the answer is below its threshold, the person is asked rather than the answer kept."""
    nothing = Money(left_micro_usd=0, prices=PRICES)
    assert verdict(0.5, "head", "remote", "person", aim=WORTH, money=nothing).rung == 2
    assert verdict(0.9, "head", "remote", "person", aim=WORTH, money=nothing).accepted


def test_a_tier_that_cannot_be_asked_is_not_weighed() -> None:
    """Missing tiers are no alternatives."""
    seen = verdict(0.5, "head", "remote", aim=WORTH, money=Money(prices=PRICES), missing=frozenset({"remote"}))
    assert (seen.rung, [w.path for w in seen.weighed if w.path]) == (None, [])
