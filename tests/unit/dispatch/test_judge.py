"""The judge: whether an answer is kept, and who is asked next if not."""

from __future__ import annotations

import pytest
from dispatch_plans import step

from swarm.dispatch.judge import NEVER, Money, Verdict, judge
from swarm.dispatch.quality import Reading
from swarm.dispatch.rules import Prices, Rule
from swarm.plan.plan import Aim

STATED = Rule(0.8, "as the file says")
WORTH = Aim(answer_micro_usd=10_000)  # a cent
ORDER, PLENTY, NONE = Aim(), Money(), frozenset[str]()
PRICES = {"remote": Prices(1_000, 500.0)}  # a tenth of a cent


def verdict(
    confidence: float, *tiers: str, rule: Rule = STATED, aim: Aim = ORDER, money: Money = PLENTY, rung: int = 0,
    missing: frozenset[str] = NONE, alarmed: bool = False,
) -> Verdict:  # fmt: skip
    planned = step("s", *tiers)
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


def test_a_person_at_the_end_gets_what_may_not_be_kept() -> None:
    """Where nothing pays and the answer is below its threshold, the person is asked rather than the answer kept."""
    nothing = Money(left_micro_usd=0, prices=PRICES)
    assert verdict(0.5, "head", "remote", "person", aim=WORTH, money=nothing).rung == 2
    assert verdict(0.9, "head", "remote", "person", aim=WORTH, money=nothing).accepted


def test_a_tier_that_cannot_be_asked_is_not_weighed() -> None:
    """Missing tiers are no alternatives."""
    seen = verdict(0.5, "head", "remote", aim=WORTH, money=Money(prices=PRICES), missing=frozenset({"remote"}))
    assert (seen.rung, [w.path for w in seen.weighed if w.path]) == (None, [])
