"""The dispatcher with rules, prices and second looks: what is kept, what is asked, what it says about it."""

from __future__ import annotations

import dataclasses
from typing import Any

import structlog
from dispatch_plans import plan, step
from dispatch_stage import RUN, staged

from protocols.money import Limit
from swarm.dispatch.certify import Certificate
from swarm.dispatch.rules import Rule
from swarm.plan.plan import Aim, Plan
from swarm.testing import Says

A, B = {"label": "a"}, {"label": "b"}
CERTIFICATE = Certificate(0.7, 0.05, 0.95, 400, 200, 2, 0.03, 0.5, 0)
CERTIFIED = Rule(0.7, "certified at 0.7", CERTIFICATE)
NOTHING = Rule(None, "not certified; 180 more labels would be needed")
CENT = 10_000  # micro-dollars


def with_aim(made: Plan, **aim: Any) -> Plan:
    return dataclasses.replace(made, aim=Aim(**aim))


# --- what is certified ------------------------------------------------------------------------------------------


async def test_a_certified_threshold_takes_the_place_of_the_files() -> None:
    """An answer below `accept_at` and above the certified threshold is kept, and the result says by what right."""
    made = with_aim(plan(step("s", "head", "remote", accept_at=0.9)), error=0.05)
    async with staged(made, {"s/head": Says(A, 0.75)}, rules={"s": CERTIFIED}) as stage:
        result = await stage.run()
        assert (result.status, result.steps["s"].tier) == ("done", "head")
        assert (result.why[0].accept_at, result.why[0].rule) == (0.7, "certified at 0.7")


async def test_without_a_certificate_everything_escalates() -> None:
    """The surest local answer is not kept; the remote one is."""
    made = with_aim(plan(step("s", "head", "small", "remote")), error=0.05)
    async with staged(made, {"s": Says(A, 0.99)}, rules={"s": NOTHING}) as stage:
        result = await stage.run()
        assert (result.status, result.steps["s"].tier) == ("done", "remote")
        assert [why.decision for why in result.why] == ["escalate", "escalate", "accepted"]
        assert result.why[0].accept_at is None and "180 more labels" in result.why[0].rule


# --- what is worth its price ------------------------------------------------------------------------------------


async def test_a_dearer_tier_is_asked_where_it_is_worth_its_price() -> None:
    """A hopeless answer skips the tier between; what was weighed, and what would have changed it, is told."""
    made = with_aim(plan(step("s", "head", "small", "remote")), answer_micro_usd=10 * CENT)
    async with staged(made, {"s/head": Says(A, 0.2), "s/remote": Says(A, 0.95)}) as stage:
        result = await stage.run()
        assert [ask.tier for ask in stage.script.asks] == ["head", "remote"]
        why = result.why[0]
        assert (why.decision, why.shadow_price) == ("escalate", 0.0)
        assert why.weighed[0].path == ("remote",) and {"accept", "give_up"} <= {w.action for w in why.weighed}
        assert "confidence" in why.would_change


async def test_what_is_not_worth_its_price_is_not_asked() -> None:
    """With a right answer worth less than the dearer tier costs, the doubtful answer is kept and flagged."""
    made = with_aim(plan(step("s", "head", "remote")), answer_micro_usd=500)
    async with staged(made, {"s/head": Says(A, 0.5)}) as stage:
        result = await stage.run()
        assert (result.status, result.output) == ("degraded", {"s": A})
        assert "nothing dearer is worth its price" in (result.reason or "")
        assert len(stage.script.asks) == 1


async def test_a_budget_that_must_last_has_a_price_of_its_own() -> None:
    """Where the money left is a tenth of what the tasks to come would take, most escalations are not bought."""
    made = with_aim(plan(step("s", "head", "remote"), run=Limit(micro_usd=10_000)), answer_micro_usd=CENT)
    answers = {"s/head": Says(A, 0.5), "s/remote": Says(A, 0.95, micro_usd=1000)}
    async with staged(made, answers, expected=100) as stage:
        results = [await stage.run(f"t-{i}") for i in range(30)]
        asked = sum(ask.tier == "remote" for ask in stage.script.asks)
        assert asked < 10, "the money would be gone after ten"
        assert any(why.shadow_price for result in results for why in result.why)
        assert (await stage.balance()).settled.micro_usd == 1000 * asked


# --- several candidates -----------------------------------------------------------------------------------------


async def test_candidates_are_held_paid_and_judged_like_any_answer() -> None:
    """The hold is of all of them, the ask says how many, and the second answer of the tier ends the step."""
    unsure, agreed = Says(A, 0.5, tokens=40), Says(B, 0.85, tokens=150)
    async with staged(plan(step("s", "small", "remote", samples=3)), {"s/small": [unsure, agreed]}) as stage:
        result = await stage.run()
        assert (result.status, result.output, result.cost.tokens) == ("done", {"s": B}, 190)
        assert [(ask.tier, ask.samples, ask.max_tokens) for ask in stage.script.asks] == [
            ("small", 1, 100),
            ("small", 3, 300),
        ]
        assert [(why.decision, why.tier) for why in result.why] == [("best_of", "small"), ("accepted", "small")]
        assert await stage.outcomes() == [("s", "small", "accepted"), ("s", "small", "escalated")]


async def test_a_skipped_tier_is_asked_when_the_dear_ones_hold_is_refused() -> None:
    """Its answer is kept, and nothing was paid."""
    made = dataclasses.replace(with_aim(plan(step("s", "head", "small", "remote")), answer_micro_usd=10 * CENT),
                               step_limit=Limit(micro_usd=900))  # fmt: skip
    answers = {"s/head": Says(A, 0.1), "s/small": Says(B, 0.9), "s/remote": Says(B, 0.95)}
    async with staged(made, answers) as stage:
        result = await stage.run()
        assert (result.status, result.output, result.cost.micro_usd) == ("done", {"s": B}, 0)
        assert [ask.tier for ask in stage.script.asks] == ["head", "small"]


# --- who else pays ----------------------------------------------------------------------------------------------


async def test_a_step_and_a_tenant_have_limits_of_their_own() -> None:
    """What a step may not spend is refused though the task could pay, and a tenant's limit holds over all."""
    made = dataclasses.replace(plan(step("s", "remote")), step_limit=Limit(micro_usd=999))
    async with staged(made, {"s": Says(A, 0.9)}) as stage:
        result = await stage.run()
        assert (result.status, stage.script.asks) == ("budget_exhausted", [])
        assert "left in this step" in (result.reason or "")
    made = dataclasses.replace(plan(step("s", "remote")), tenant="acme", tenant_limit=Limit(micro_usd=1500))
    async with staged(made, {"s": Says(A, 0.9, micro_usd=1000)}) as stage:
        statuses = [(await stage.run(f"t-{i}")).status for i in range(2)]
        assert statuses == ["done", "budget_exhausted"]
        assert (await stage.store.balance("tenant:acme")).settled.micro_usd == 1000


# --- second looks -----------------------------------------------------------------------------------------------


async def test_accepted_answers_are_looked_at_again_beside_the_tasks() -> None:
    """The dearest tier is asked out of the exploring account; results, and what tasks cost, stay as they were."""
    made = dataclasses.replace(with_aim(plan(step("s", "head", "remote")), explore=1.0),
                               explore_limit=Limit(micro_usd=2500))  # fmt: skip
    async with staged(made, {"s/head": Says(A, 0.9), "s/remote": Says(A, 0.9, micro_usd=1000)}) as stage:
        results = [await stage.run(f"t-{i}") for i in range(5)]
        await stage.dispatcher.close()
        assert [(r.status, r.cost.micro_usd) for r in results] == [("done", 0)] * 5
        looked = [a for a in await stage.attempts() if a.outcome == "looked"]
        assert len(looked) == 2, "the third would be more than the account has"
        assert (await stage.store.balance(f"task:explore-{RUN}")).settled.micro_usd == 2000


async def test_a_broken_certificate_raises_the_alarm_and_nothing_local_is_kept() -> None:
    """When the dearer tier says otherwise again and again, the step escalates everything from then on."""
    made = with_aim(plan(step("s", "head", "remote")), error=0.05, explore=1.0)
    answers = {"s/head": Says(A, 0.9), "s/remote": Says(B, 0.95)}
    with structlog.testing.capture_logs() as logs:
        async with staged(made, answers, rules={"s": CERTIFIED}) as stage:
            tiers = []
            for i in range(20):
                tiers.append((await stage.run(f"t-{i}")).steps["s"].tier)
                await stage.dispatcher.close()
    assert tiers[0] == "head" and tiers[-1] == "remote"
    assert [log["step"] for log in logs if log["event"] == "certificate.broken"] == ["s"]


async def test_second_looks_that_agree_raise_no_alarm() -> None:
    """As long as the dearer tier says the same, local answers are kept."""
    made = with_aim(plan(step("s", "head", "remote")), error=0.05, explore=1.0)
    async with staged(made, {"s": Says(A, 0.9)}, rules={"s": CERTIFIED}) as stage:
        for i in range(20):
            assert (await stage.run(f"t-{i}")).steps["s"].tier == "head"
            await stage.dispatcher.close()
