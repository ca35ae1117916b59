"""The dispatcher carries out what the policy decides: every task ends once, every hold ends, nothing goes untold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from dispatch_plans import plan, step
from dispatch_stage import RUN, FixedPrices, Stage, staged

from protocols.answers import Ask, Signals
from protocols.control import Calibration
from protocols.events import Event, StepAccepted, StepEnded, StepEscalated, TaskFinished
from protocols.money import Amount, Limit
from protocols.tasks import Task
from swarm.dispatch.attempts import GRACE_MS
from swarm.errors import StoreError
from swarm.state.base import Store
from swarm.testing import Answers, Dies, Fails, Hangs, Refuses, Says

A = {"label": "a"}
UNSURE = Says(A, confidence=0.5, tokens=60)
SURE = Says(A, confidence=0.9, tokens=60)


async def until_asked(stage: Stage, n: int) -> None:
    while len(stage.script.asks) < n:  # noqa: ASYNC110 (the script tells nobody)
        await asyncio.sleep(0)


# --- one task ---------------------------------------------------------------------------------------------------


async def test_a_chain_of_steps_is_answered() -> None:
    """Each step gets what it reads, the result holds every output, and the least sure step is the result's measure."""
    made = plan(step("s", "head"), step("t", "head", needs="s"))
    async with staged(made, {"s": Says(A, 0.95), "t": Says({"label": "b"}, 0.85)}) as stage:
        result = await stage.run()
        assert (result.status, result.output) == ("done", {"s": A, "t": {"label": "b"}})
        assert result.confidence == 0.85
        assert [ask.input for ask in stage.script.asks] == [{"text": "hi"}, {"text": "hi", "s": A}]
        assert await stage.store.results(RUN) == [result]


async def test_steps_that_need_nothing_of_each_other_run_at_once() -> None:
    """The second is asked while the first has not answered."""
    async with staged(plan(step("s", "head"), step("t", "head")), {"s": Hangs(), "t": Says(A)}) as stage:
        running = asyncio.create_task(stage.run())
        await until_asked(stage, 2)
        assert {ask.step for ask in stage.script.asks} == {"s", "t"}
        running.cancel()


async def test_an_unsure_answer_goes_up_the_ladder() -> None:
    """The next tier is told what the last one said, both are paid, both are in the journal."""
    async with staged(plan(step("s", "small", "remote")), {"s/small": UNSURE, "s/remote": SURE}) as stage:
        result = await stage.run()
        assert (result.status, result.steps["s"].tier, result.cost.tokens) == ("done", "remote", 120)
        assert [e.tier for e in stage.script.asks[1].earlier] == ["small"]
        assert await stage.outcomes() == [("s", "remote", "accepted"), ("s", "small", "escalated")]
        assert (await stage.balance()).settled.tokens == 120


async def test_events_tell_the_story_in_order() -> None:
    """Accepted first, finished last, and in between each thing when it happened."""
    made = plan(step("s", "head", "small"), step("t", "small", needs="s"))
    script: Answers = {"s/head": Says(A, 0.4), "s/small": SURE, "t": Fails("error")}
    async with staged(made, script) as stage:
        result = await stage.run()
        assert stage.kinds() == [
            "TaskAccepted",
            "StepAsked s",
            "StepEscalated s",
            "StepAsked s",
            "StepAccepted s",
            "StepAsked t",
            "StepEscalated t",
            "StepEnded t",
            "TaskFinished",
        ]
        assert stage.events[-1] == TaskFinished(task="t-1", result=result)
        assert stage.events[2] == StepEscalated(
            task="t-1", step="s", from_tier="head", to_tier="small", reason="confidence 0.40 is below 0.80",
            confidence=0.4,
        )  # fmt: skip
        assert stage.events[4] == StepAccepted(task="t-1", step="s", tier="small", confidence=0.9, output=A)


async def test_every_decision_is_explained_once() -> None:
    """What was decided about which tier, from what confidence, signals, threshold, hold and budget."""
    made = plan(
        step("s", "head", "small", "remote", accept_at=0.7), step("t", "person", needs="s"), task=Limit(tokens=250)
    )
    script: Answers = {
        "s/head": Says(A, signals=Signals(p=0.4, margin=0.1)),
        "s/small": [Fails("overloaded", "full", retryable=True), UNSURE],
    }
    async with staged(made, script) as stage:
        result = await stage.run()
    story = [(why.step, why.decision, why.tier, why.confidence, why.reason) for why in result.why]
    refused = "step 's' at tier 'remote' needs 200 tokens, 190 tokens left in this task; raise budget.task.tokens"
    assert story == [
        ("s", "escalate", "head", 0.4, "confidence 0.40 is below 0.70"),
        ("s", "retry", "small", None, "overloaded: full"),
        ("s", "escalate", "small", 0.5, "confidence 0.50 is below 0.70"),
        ("s", "degraded", "small", 0.5, refused),
        ("t", "person", "person", None, "no tier can be asked"),
    ]
    assert {why.accept_at for why in result.why} == {0.7, 0.8}
    assert result.why[0].signals == {"p": 0.4, "margin": 0.1}
    assert [why.hold for why in result.why] == [
        None, Amount(tokens=100), Amount(tokens=100), Amount(tokens=200, micro_usd=1000), None,
    ]  # fmt: skip
    assert [why.budget_left for why in result.why] == [{}, {}, {}, {"task.tokens": 190}, {}]


async def test_steps_that_end_with_another_are_explained_too() -> None:
    """A step that was skipped says because of which."""
    made = plan(step("s", "head"), step("t", "head", needs="s"))
    async with staged(made, {"s": Fails("declined", "nothing to say")}) as stage:
        result = await stage.run()
    assert [(why.step, why.decision, why.reason) for why in result.why] == [
        ("s", "escalate", "declined: nothing to say"),
        ("s", "failed", "declined: nothing to say"),
        ("t", "skipped", "step 's' has no output"),
    ]
    assert (result.status, result.steps["t"].status) == ("failed", "skipped")


async def test_a_missed_tier_is_journalled_with_what_it_would_have_got() -> None:
    """The receipt can say what a key would have cost."""
    made = plan(step("s", "small", "remote", "person"))
    async with staged(made, {"s": UNSURE}, unavailable={"remote": "no key"}) as stage:
        result = await stage.run()
        assert result.status == "person"
        assert ("missed", "remote", "no key") in [(why.decision, why.tier, why.reason) for why in result.why]
        (missed,) = [a for a in await stage.attempts() if a.tier == "remote"]
        assert (missed.outcome, missed.remote_tokens_in, missed.remote_tokens_out) == ("unavailable", 50, 5)


async def test_confidence_comes_through_the_tier_s_calibration() -> None:
    """What a tier says of itself is worth what its calibration makes of it."""
    made = plan(step("s", "small", "remote"))
    humble = {"does_s/small": Calibration(intercept=-5.0, weights={})}
    async with staged(made, {"s": SURE}, calibrations=humble) as stage:
        result = await stage.run()
        assert result.steps["s"].tier == "remote"


async def test_a_remote_answer_without_signals_is_trusted_at_first() -> None:
    """Until something has been measured; a failed check is believed at once."""
    silent = Says(A, signals=Signals())
    async with staged(plan(step("s", "remote")), {"s": silent}) as stage:
        assert (await stage.run()).confidence == 0.9
    refuted = Says(A, signals=Signals(checks_failed=("in_message",)))
    async with staged(plan(step("s", "remote")), {"s": refuted}) as stage:
        result = await stage.run()
        assert (result.status, result.confidence) == ("degraded", 0.0)


# --- input that cannot be used ----------------------------------------------------------------------------------


async def test_a_missing_input_ends_the_task_at_once() -> None:
    """Before anything is asked or held, and the reason names the step and the key, also of a step that comes late."""
    made = plan(step("s", "small"), step("t", "small", needs="s"))
    async with staged(made, {"s": SURE, "t": SURE}) as stage:
        result = await stage.run(txt="hi")
        assert result.status == "failed"
        assert (
            result.reason == "step 's' needs ${input.text}, and the task has no such value; add it to the task's input"
        )
        assert {s.status for s in result.steps.values()} == {"skipped"}
        assert (stage.script.asks, await stage.attempts()) == ([], [])
        assert stage.kinds() == ["TaskAccepted", "StepEnded s", "StepEnded t", "TaskFinished"]
        assert await stage.store.results(RUN) == [result]


@pytest.mark.parametrize("value", ["\ud83d", 2**64, {1, 2, object()}])
async def test_input_that_cannot_travel_ends_the_task_at_once(value: object) -> None:
    """Half a surrogate pair, too large a number or a foreign object reaches no host."""
    async with staged(plan(step("s", "small")), {"s": SURE}) as stage:
        result = await stage.run(text=value)
        assert (result.status, stage.script.asks) == ("failed", [])
        assert result.reason is not None
        assert result.reason.startswith("the input cannot be sent to a host: ")


@pytest.mark.parametrize(
    "value", [datetime(2026, 1, 2, tzinfo=UTC), b"abc", Decimal("1.5"), float("nan"), [{"a": b""}]]
)
async def test_input_that_is_no_json_ends_the_task_at_once(value: object) -> None:
    """Though it could travel, no model can read it: the reason names the input. What no step reads may be anything."""
    async with staged(plan(step("s", "small")), {"s": SURE}) as stage:
        result = await stage.run(text=value)
        assert (result.status, stage.script.asks) == ("failed", [])
        assert (result.reason or "").startswith("input 'text' of step 's' is no JSON value: ")
        assert (await stage.run("t-2", text="hi", unread=b"abc")).status == "done"


@pytest.mark.parametrize("value", [None, "", "  ", True])
async def test_a_text_that_says_nothing_ends_the_task_at_once(value: object) -> None:
    """No tier is asked about nothing, so none can be sure of it."""
    async with staged(plan(step("s", "small")), {"s": SURE}) as stage:
        result = await stage.run(text=value)
        assert (result.status, stage.script.asks) == ("failed", [])
        assert "has nothing to read" in (result.reason or "")


# --- the budget -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tiers", "on_exhausted", "other"),
    [
        (("head", "small"), "degrade", "degraded"),
        (("head", "small"), "stop", "budget_exhausted"),
        (("small",), "degrade", "budget_exhausted"),
        (("small",), "stop", "budget_exhausted"),
        (("small", "person"), "degrade", "person"),
    ],
)
async def test_a_run_never_spends_more_than_its_budget(tiers: tuple[str, ...], on_exhausted: Any, other: str) -> None:
    """32 tasks at once want 50,000 tokens of 5,000: as many are done as can be paid, the others end as declared."""
    made = plan(step("s", *tiers), on_exhausted=on_exhausted, run=Limit(tokens=5000))
    script: Answers = {"s/head": Says(A, 0.5), "s/small": Says(A, 0.9, tokens=1000)}
    prices = FixedPrices({"small": Amount(tokens=1600)})
    async with staged(made, script, prices=prices, hosts=2) as stage:
        results = await asyncio.gather(*(stage.run(f"t-{i:02}") for i in range(32)))
        statuses = sorted(result.status for result in results)
        assert statuses == sorted(["done"] * 4 + [other] * 28), "4,000 are spent, 1,600 more do not fit"
        balance = await stage.balance()
        assert (balance.settled.tokens, balance.held) == (4000, Amount())
        why = "step 's' at tier 'small' needs 1,600 tokens, 1,000 tokens left in this run; raise budget.run.tokens"
        assert len(await stage.store.results(RUN)) == 32
        assert sum(result.cost.tokens for result in results) == 4000
        for result in results:
            if result.status != "done":
                assert result.reason == why


async def test_a_task_never_spends_more_than_its_own_budget() -> None:
    """Steps side by side share the task's account."""
    made = plan(*(step(f"s{i}", "small") for i in range(8)), on_exhausted="degrade", task=Limit(tokens=250))
    async with staged(made, lambda _: Says(A, tokens=60)) as stage:
        result = await stage.run()
        balance = await stage.balance("task:t-1")
        assert (balance.settled.tokens, balance.held) == (180, Amount())
        assert sorted(s.status for s in result.steps.values()) == ["accepted"] * 3 + ["failed"] * 5
        assert result.status == "budget_exhausted"


async def test_an_attempt_waits_for_room_that_others_may_leave() -> None:
    """Only one hold fits at a time, and all tasks are done one after the other; nobody is turned away."""
    made, prices = plan(step("s", "small"), run=Limit(tokens=1000)), FixedPrices({"small": Amount(tokens=900)})
    async with staged(made, {"s": Says(A, tokens=5)}, prices=prices) as stage:
        results = await asyncio.wait_for(asyncio.gather(*(stage.run(f"t-{i}") for i in range(12))), 30)
        assert {result.status for result in results} == {"done"}
        assert (await stage.balance()).settled.tokens == 60


async def test_stopping_ends_what_runs_beside_and_charges_nothing_for_it() -> None:
    """The hold of a dropped local attempt is void, and its host is told."""
    made = plan(step("s", "small"), step("t", "remote"), on_exhausted="stop", task=Limit(tokens=150))
    async with staged(made, {"s": Hangs()}) as stage:
        result = await stage.run()
        assert (result.status, result.cost) == ("budget_exhausted", Amount())
        assert await stage.outcomes() == [("s", "small", "cancelled"), ("t", "remote", "refused")]
        balance = await stage.balance()
        assert (balance.settled, balance.held) == (Amount(), Amount())


async def test_what_used_more_than_its_hold_is_charged_its_hold() -> None:
    """The account cannot be overdrawn; the result says what was really used."""
    async with staged(plan(step("s", "small"), run=Limit(tokens=100)), {"s": Says(A, tokens=130)}) as stage:
        result = await stage.run()
        assert (result.status, result.cost.tokens) == ("done", 130)
        balance = await stage.balance()
        assert (balance.settled.tokens, balance.overrun) == (100, Amount(tokens=30))


async def test_an_attempt_of_unknown_outcome_is_charged_whole() -> None:
    """Something may have been spent that nobody saw."""
    script: Answers = {"s/small": Fails("host_died", unknown=True), "s/remote": Fails("unavailable", micro_usd=7)}
    async with staged(plan(step("s", "small", "remote")), script) as stage:
        result = await stage.run()
        assert result.status == "failed"
        assert (await stage.balance()).settled == Amount(tokens=100, micro_usd=7)
        assert result.cost == Amount(tokens=100, micro_usd=7)


async def test_each_try_is_paid_for() -> None:
    """A retry is an attempt of its own, in the books and in the journal."""
    script: Answers = {"s": [Fails("error", retryable=True, tokens=30), Says(A, tokens=40)]}
    async with staged(plan(step("s", "small")), script) as stage:
        result = await stage.run()
        assert (result.status, result.cost.tokens) == ("done", 70)
        assert await stage.outcomes() == [("s", "small", "accepted"), ("s", "small", "failed")]
        assert len({a.id for a in await stage.attempts()}) == 2


async def test_a_host_that_dies_costs_its_task_nothing_extra() -> None:
    """The bus asks again under the same id, so there is one attempt, one hold and one bill."""
    async with staged(plan(step("s", "small")), {"s": (Dies(), Refuses(), SURE)}) as stage:
        result = await stage.run()
        assert (result.status, result.cost.tokens) == ("done", 60)
        assert await stage.outcomes() == [("s", "small", "accepted")]


# --- the clock and the caller -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("tier", "charged"), [("small", Amount()), ("remote", Amount(tokens=200, micro_usd=1000))])
async def test_a_deadline_ends_the_task_and_its_holds(tier: str, charged: Amount) -> None:
    """Local work is dropped for nothing; a paid call that was under way is charged whole."""
    async with staged(plan(step("s", tier), step("t", "head")), {"s": Hangs(), "t": Says(A)}) as stage:
        result = await stage.run(left_ms=500)
        assert (result.status, result.cost) == ("deadline", charged)
        assert result.reason == "no time left; raise budget.task.seconds"
        assert ("s", "skipped", "no time left; raise budget.task.seconds") in [
            (why.step, why.decision, why.reason) for why in result.why
        ]
        balance = await stage.balance()
        assert (balance.settled, balance.held) == (charged, Amount())
        assert ("s", tier, "cancelled") in await stage.outcomes()
        assert await stage.store.results(RUN) == [result]


async def test_a_deadline_names_the_limit_it_came_from() -> None:
    """The run's time is not the task's."""
    async with staged(plan(step("s", "small")), {"s": Hangs()}) as stage:
        task = Task(id="t-1", run=RUN, input={"text": "hi"}, left_ms=30, left_of="run")
        result = await stage.dispatcher.run(task, stage.events.append)
        assert (result.status, result.reason) == ("deadline", "no time left; raise budget.run.seconds")


async def test_a_deadline_is_the_tasks_though_its_host_keeps_time_too() -> None:
    """A host whose clock runs a little ahead does not turn the end of the time into a failure of its own."""

    def early(ask: Ask) -> Fails:
        assert ask.left_ms is not None
        return Fails("timeout", after_s=ask.left_ms / 1000 - 0.01)

    async with staged(plan(step("s", "small")), early) as stage:
        assert (await stage.run(left_ms=100)).status == "deadline"


async def test_the_time_left_is_told_to_the_host() -> None:
    """And it shrinks from step to step."""
    made = plan(step("s", "head"), step("t", "head", needs="s"))
    async with staged(made, {"s": Says(A, after_s=0.02), "t": Says(A)}) as stage:
        await stage.run(left_ms=60_000)
        first, second = (ask.left_ms for ask in stage.script.asks)
        assert first is not None
        assert second is not None
        assert second < first <= 60_000 + GRACE_MS


@pytest.mark.parametrize(("tier", "charged"), [("small", Amount()), ("remote", Amount(tokens=200, micro_usd=1000))])
async def test_cancelling_ends_the_task_once_and_for_all(tier: str, charged: Amount) -> None:
    """Holds are voided (a paid call: charged), the attempt is journalled, and the result says who ended it."""
    async with staged(plan(step("s", tier)), {"s": Hangs()}) as stage:
        running = asyncio.create_task(stage.run())
        await until_asked(stage, 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        (result,) = await stage.store.results(RUN)
        assert (result.status, result.reason, result.cost) == ("cancelled", "the caller cancelled it", charged)
        assert await stage.outcomes() == [("s", tier, "cancelled")]
        balance = await stage.balance()
        assert (balance.settled, balance.held) == (charged, Amount())
        assert stage.events[-1] == TaskFinished(task="t-1", result=result)


async def test_cancelling_a_task_that_waits_for_room_leaves_nothing() -> None:
    """It held nothing, so there is nothing to end; whoever waits behind it is served."""
    made = plan(step("s", "small"), run=Limit(tokens=150))
    async with staged(made, {"s": [Hangs(), SURE]}) as stage:
        first = asyncio.create_task(stage.run("t-1"))
        await until_asked(stage, 1)
        second, third = (asyncio.create_task(stage.run(id)) for id in ("t-2", "t-3"))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        first.cancel()
        assert (await asyncio.wait_for(third, 30)).status == "done"
        assert (await stage.balance()).held == Amount()


@pytest.mark.parametrize("ticks", range(0, 90, 3))
async def test_cancelling_at_any_moment_leaves_clean_books(ticks: int) -> None:
    """However far it had come: one terminal state, no hold left open, every charge in the journal's task."""
    made = plan(step("s", "head", "small"), step("t", "small"), step("u", "small", needs="st"))
    async with staged(made, lambda ask: Says(A, 0.5) if ask.tier == "head" else SURE) as stage:
        running = asyncio.create_task(stage.run())
        for _ in range(ticks):
            await asyncio.sleep(0)
        running.cancel()
        (ended,) = await asyncio.gather(running, return_exceptions=True)
        results = await stage.store.results(RUN)
        if not results:
            assert ticks == 0, "only a task that never began may end without a result"
            return
        (result,) = results
        if result.status == "cancelled":
            assert isinstance(ended, asyncio.CancelledError)
        else:
            assert ended == result, "a task that is over is told, though nobody may want it any more"
        balance = await stage.balance("task:t-1")
        assert (balance.held, balance.settled.tokens) == (Amount(), result.cost.tokens)
        assert all(a.outcome != "" for a in await stage.attempts())


# --- what may go wrong ------------------------------------------------------------------------------------------


class Faulty:
    """A store that fails at what a test names, else the real one."""

    def __init__(self, store: Store, *fails_at: str) -> None:
        self._store = store
        self._fails_at = fails_at

    def __getattr__(self, name: str) -> Any:
        if name in self._fails_at:
            return self._fail
        return getattr(self._store, name)

    async def _fail(self, *_: object, **__: object) -> None:
        raise StoreError("the disk is gone")


async def test_without_the_ledger_nothing_paid_is_started() -> None:
    """No hold, no ask: free tiers still answer, and what is left is kept or fails."""
    made = plan(step("s", "head", "small", "remote"))
    async with staged(made, {"s": Says(A, 0.5)}, wrap=lambda s: Faulty(s, "hold")) as stage:
        result = await stage.run()
        assert {ask.tier for ask in stage.script.asks} == {"head"}
        assert (result.status, result.cost) == ("degraded", Amount())
        assert "the disk is gone" in (result.reason or "")


async def test_a_hold_is_asked_for_twice_and_then_the_step_fails() -> None:
    """A store that cannot hold the cheap tier's price is no reason to ask a dearer one."""
    made = plan(step("s", "small", "remote"))
    async with staged(made, {"s": SURE}, wrap=lambda s: Hiccups(s, "hold")) as stage:
        result = await stage.run()
        assert (result.status, result.steps["s"].tier) == ("done", "small")
    async with staged(made, {"s": SURE}, wrap=lambda s: Hiccups(s, "hold", times=2)) as stage:
        result = await stage.run()
        assert (result.status, stage.script.asks) == ("failed", [])
        assert result.reason == "step 's': unavailable: the disk is busy"


@pytest.mark.parametrize("at", ["accept", "settle", "finish"])
async def test_a_task_that_cannot_be_written_down_is_an_error(at: str) -> None:
    """The caller learns it, and nothing goes on behind his back."""
    made = plan(step("s", "small"), step("t", "small"))
    async with staged(made, {"s": SURE, "t": Hangs()}, wrap=lambda s: Faulty(s, at)) as stage:
        with pytest.raises(StoreError, match="the disk is gone"):
            await asyncio.wait_for(stage.run(left_ms=50), 30)
        assert len(asyncio.all_tasks() - {asyncio.current_task()}) <= 4, "the bus's own, and nobody's attempt"


class Hiccups:
    """A store that fails `times` times at one thing, and then works."""

    def __init__(self, store: Store, at: str, times: int = 1) -> None:
        self._store = store
        self._at = at
        self._left = times

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)
        return self._try(real) if name == self._at else real

    def _try(self, real: Any) -> Any:
        async def work(*given: Any, **more: Any) -> Any:
            self._left -= 1
            if self._left >= 0:
                raise StoreError("the disk is busy")
            return await real(*given, **more)

        return work


@pytest.mark.parametrize(("at", "becomes"), [("settle", "failed"), ("finish", "done")])
async def test_a_store_that_fails_for_a_moment_leaves_clean_books(at: str, becomes: str) -> None:
    """The task ends once, its hold is ended, and whoever waits for the room is served."""
    made = plan(step("s", "small"), run=Limit(tokens=150))
    async with staged(made, {"s": Says(A, tokens=20)}, wrap=lambda s: Hiccups(s, at)) as stage:
        results = await asyncio.wait_for(asyncio.gather(stage.run("t-1"), stage.run("t-2")), 30)
        assert sorted(result.status for result in results) == sorted([becomes, "done"])
        assert await stage.store.results(RUN) == list(results)
        balance = await stage.balance()
        assert (balance.held, balance.settled.tokens) == (Amount(), 40)


async def test_holds_that_cannot_be_ended_turn_everybody_away() -> None:
    """Who waits for room and who comes later fails at once instead of waiting for ever."""
    made = plan(step("s", "small"), run=Limit(tokens=150))
    async with staged(made, {"s": Says(A, tokens=20)}, wrap=lambda s: Faulty(s, "settle", "void")) as stage:
        first, second = await asyncio.wait_for(
            asyncio.gather(stage.run("t-1"), stage.run("t-2"), return_exceptions=True), 30
        )
        assert isinstance(first, StoreError)
        assert isinstance(second, StoreError)
        with pytest.raises(StoreError):
            await asyncio.wait_for(stage.run("t-3"), 30)
        assert [ask.task for ask in stage.script.asks] == ["t-1"], "nothing is started any more"


async def test_cancelling_in_the_moment_of_the_deadline_still_ends_the_task() -> None:
    """Whichever came first: one terminal state, no hold left open."""
    async with staged(plan(step("s", "small")), {"s": Hangs()}) as stage:
        running = asyncio.create_task(stage.run(left_ms=30))

        def cancel_at_the_end(event: Event) -> None:
            if isinstance(event, StepEnded):
                running.cancel()

        stage.events = _Calling(cancel_at_the_end)
        with pytest.raises(asyncio.CancelledError):
            await running
        assert len(await stage.store.results(RUN)) == 1
        assert (await stage.balance()).held == Amount()


class Slow:
    """A store whose terminal states take a while, and are written though their writer has gone away."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.begun = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def finish(self, *given: Any) -> None:
        self.begun.set()
        writing = asyncio.ensure_future(self._store.finish(*given))
        await asyncio.sleep(0.01)
        await writing


async def test_cancelling_a_task_whose_end_is_being_written_comes_too_late() -> None:
    """The caller gets what became of it; it is written once, and told once."""
    slow: list[Slow] = []

    def wrap(store: Store) -> Any:
        slow.append(Slow(store))
        return slow[0]

    async with staged(plan(step("s", "head")), {"s": Says(A)}, wrap=wrap) as stage:
        running = asyncio.create_task(stage.run())
        await slow[0].begun.wait()
        running.cancel()
        result = await running
        assert result.status == "done"
        assert await stage.store.results(RUN) == [result]
        assert stage.kinds().count("TaskFinished") == 1


class _Calling(list[Any]):
    def __init__(self, call: Callable[[Event], None]) -> None:
        super().__init__()
        self.append = call  # type: ignore[method-assign]


async def test_a_watcher_that_fails_harms_nobody() -> None:
    """Events that cannot be delivered are dropped, the task goes on."""
    async with staged(plan(step("s", "small")), {"s": SURE}) as stage:
        stage.events = _Raising()
        assert (await stage.run()).status == "done"


class _Raising(list[Any]):
    def append(self, _: object) -> None:
        raise RuntimeError("the window was closed")


class BadPrices(FixedPrices):
    """An estimator with a bug."""

    def hold(self, step: Any, tier: Any, given: Any) -> Amount:
        raise KeyError("no such price")


async def test_a_mistake_of_ours_ends_the_attempt_and_not_the_world() -> None:
    """A task whose attempt raises ends as failed instead of waiting for ever."""
    async with staged(plan(step("s", "small")), {"s": SURE}, prices=BadPrices()) as stage:
        result = await asyncio.wait_for(stage.run(), 30)
        assert (result.status, stage.script.asks) == ("failed", [])
        assert "KeyError" in (result.reason or "")
