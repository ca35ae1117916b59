"""The policy as a pure function: this event, in this state, brings about these decisions."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
from dispatch_plans import TIERS, plan, step

from protocols.answers import Earlier, Failed, Reason, Signals
from swarm.dispatch.judge import Money
from swarm.dispatch.moves import (
    Answered,
    AttemptFailed,
    Begin,
    Decision,
    Drop,
    EndStep,
    Escalate,
    Event,
    Finish,
    HoldRefused,
    Missed,
    TimeUp,
    Try,
    Unusable,
)
from swarm.dispatch.policy import TaskState, decide
from swarm.dispatch.quality import Quality
from swarm.dispatch.rules import Prices, Rule
from swarm.plan.plan import Aim, Plan

A = {"label": "a"}
B = {"label": "b"}
UNSURE, SURE = 0.5, 0.9


def answered(step: str, tier: str, confidence: float, output: dict[str, Any] | None = None, **signals: Any) -> Answered:
    return Answered(step, tier, A if output is None else output, Signals(**signals), confidence)


def failed(step: str, tier: str, reason: Reason = "error", *, retryable: bool = False) -> AttemptFailed:
    return AttemptFailed(step, tier, Failed(id="a", reason=reason, detail="why", retryable=retryable))


def ask(step: str, tier: str, *earlier: Earlier) -> Try:
    return Try(step, TIERS[tier], earlier)


def after(made: Plan, *events: Event, unavailable: dict[str, str] | None = None) -> tuple[list[Decision], TaskState]:
    """What the last of `events` brings about, and the state it leaves."""
    state = TaskState(made, unavailable or {})
    decisions: list[Decision] = []
    for event in (Begin(), *events):
        decisions = decide(event, state)
    return [_plain(decision) for decision in decisions], state


def _plain(decision: Decision) -> Decision:
    """Without what it was judged by, which test_judge.py looks at."""
    if isinstance(decision, EndStep | Escalate):
        return msgspec.structs.replace(decision, verdict=None)
    return decision


# --- one step ---------------------------------------------------------------------------------------------------


def test_a_task_begins_with_the_cheapest_tier() -> None:
    """The first rung of the ladder is asked first."""
    decisions, _ = after(plan(step("s", "head", "small")))
    assert decisions == [ask("s", "head")]


@pytest.mark.parametrize("confidence", [0.8, 0.81, 1.0])
def test_a_sure_answer_is_accepted(confidence: float) -> None:
    """Confidence that reaches the threshold ends the step, and with it the task."""
    decisions, _ = after(plan(step("s", "head", "small")), answered("s", "head", confidence))
    assert decisions == [EndStep("s", "accepted", "head", A, confidence), Finish("done")]


def test_an_unsure_answer_escalates() -> None:
    """Below the threshold the next tier is asked, and told what the earlier one said."""
    decisions, _ = after(plan(step("s", "head", "small")), answered("s", "head", 0.79, p=0.79))
    assert decisions == [
        Escalate("s", "head", "small", "confidence 0.79 is below 0.80", 0.79),
        ask("s", "small", Earlier("head", A, Signals(p=0.79))),
    ]


def test_a_failed_check_is_given_as_the_reason() -> None:
    """An answer that a check has refuted says which."""
    decisions, _ = after(plan(step("s", "code", "small")), answered("s", "code", 0.0, checks_failed=("in_message",)))
    assert decisions[0] == Escalate("s", "code", "small", "failed in_message", 0.0)


def test_every_earlier_answer_travels_up() -> None:
    """The third tier sees what the first two said, in order."""
    decisions, _ = after(
        plan(step("s", "head", "small", "remote")), answered("s", "head", 0.1), answered("s", "small", 0.2, B)
    )
    assert decisions[-1] == ask("s", "remote", Earlier("head", A, Signals()), Earlier("small", B, Signals()))


def test_a_failure_escalates_without_an_earlier_answer() -> None:
    """A tier that failed has said nothing that the next should know."""
    decisions, _ = after(plan(step("s", "head", "small")), failed("s", "head", "too_long"))
    assert decisions == [Escalate("s", "head", "small", "too_long: why"), ask("s", "small")]


def test_a_failure_that_may_pass_is_tried_once_more() -> None:
    """The same tier gets one more try, and then the next tier its turn."""
    made = plan(step("s", "small", "remote"))
    again = failed("s", "small", "overloaded", retryable=True)
    decisions, _ = after(made, again)
    assert decisions == [ask("s", "small")]
    decisions, _ = after(made, again, again)
    assert decisions == [Escalate("s", "small", "remote", "overloaded: why"), ask("s", "remote")]


def test_each_tier_has_its_own_second_try() -> None:
    """A retry used up on one tier is not missing on the next."""
    decisions, _ = after(
        plan(step("s", "small", "remote")),
        failed("s", "small", retryable=True),
        failed("s", "small", retryable=True),
        failed("s", "remote", retryable=True),
    )
    assert decisions == [ask("s", "remote")]


def test_a_tier_that_cannot_be_asked_is_skipped_and_noted() -> None:
    """Without its key a tier is missed, and the tier above it asked."""
    made = plan(step("s", "small", "remote", "person"))
    decisions, _ = after(made, answered("s", "small", UNSURE), unavailable={"remote": "no key"})
    assert decisions == [
        Escalate("s", "small", "person", "confidence 0.50 is below 0.80", UNSURE),
        Missed("s", TIERS["remote"], "no key"),
        EndStep("s", "person", "person", reason="confidence 0.50 is below 0.80"),
        Finish("person", "step 's': confidence 0.50 is below 0.80"),
    ]


def test_a_first_tier_that_cannot_be_asked_is_skipped() -> None:
    """A ladder may begin above its first rung."""
    decisions, _ = after(plan(step("s", "remote", "small")), unavailable={"remote": "no key"})
    assert decisions == [Missed("s", TIERS["remote"], "no key"), ask("s", "small")]


def test_a_step_that_nobody_can_do_fails() -> None:
    """When no tier is within reach the task says so at once."""
    decisions, _ = after(plan(step("s", "remote")), unavailable={"remote": "no key"})
    assert decisions == [
        Missed("s", TIERS["remote"], "no key"),
        EndStep("s", "failed", reason="no tier can be asked"),
        Finish("failed", "step 's': no tier can be asked"),
    ]


def test_a_ladder_that_ends_keeps_its_best_answer() -> None:
    """The surest answer is kept, flagged, with the reason."""
    decisions, _ = after(plan(step("s", "head", "small")), answered("s", "head", 0.6, B), answered("s", "small", 0.4))
    reason = "confidence 0.40 is below 0.80, and no dearer tier can be asked"
    assert decisions == [
        Escalate("s", "small", None, "confidence 0.40 is below 0.80", 0.4),
        EndStep("s", "degraded", "head", B, 0.6, reason),
        Finish("degraded", f"step 's': {reason}"),
    ]


def test_of_two_equal_answers_the_dearer_is_kept() -> None:
    """With the same confidence the later tier is believed."""
    decisions, _ = after(plan(step("s", "head", "small")), answered("s", "head", 0.5, B), answered("s", "small", 0.5))
    assert decisions[1] == EndStep(
        "s", "degraded", "small", A, 0.5, "confidence 0.50 is below 0.80, and no dearer tier can be asked"
    )


def test_a_ladder_without_any_answer_fails() -> None:
    """When every tier failed there is nothing to keep."""
    decisions, _ = after(plan(step("s", "head", "small")), failed("s", "head"), failed("s", "small"))
    assert decisions == [
        Escalate("s", "small", None, "error: why"),
        EndStep("s", "failed", reason="error: why"),
        Finish("failed", "step 's': error: why"),
    ]


def test_a_ladder_that_ends_in_a_person_hands_over() -> None:
    """A person is no attempt: the step ends, and no output is made up."""
    decisions, _ = after(plan(step("s", "small", "person")), answered("s", "small", UNSURE))
    reason = "confidence 0.50 is below 0.80"
    assert decisions == [
        Escalate("s", "small", "person", reason, UNSURE),
        EndStep("s", "person", "person", reason=reason),
        Finish("person", f"step 's': {reason}"),
    ]


# --- several candidates -----------------------------------------------------------------------------------------


def sampled(step: str, confidence: float, output: dict[str, Any] | None = None) -> Answered:
    return Answered(step, "small", A if output is None else output, Signals(), confidence, samples=5)


def test_an_unsure_local_model_is_asked_for_candidates_before_a_dearer_tier() -> None:
    """Where the step may have several, the same tier draws them, told what it said; only then the next is asked."""
    made = plan(step("s", "small", "remote", samples=5))
    decisions, _ = after(made, answered("s", "small", UNSURE))
    first = Earlier("small", A, Signals())
    assert decisions == [
        Escalate("s", "small", "small", "confidence 0.50 is below 0.80", UNSURE),
        Try("s", TIERS["small"], (first,), 5),
    ]
    decisions, _ = after(made, answered("s", "small", UNSURE), sampled("s", 0.7, B))
    assert decisions == [
        Escalate("s", "small", "remote", "confidence 0.70 is below 0.80", 0.7),
        ask("s", "remote", first, Earlier("small*", B, Signals())),
    ]


def test_candidates_that_agree_are_accepted() -> None:
    """The chosen one ends the step like any other answer of that tier."""
    made = plan(step("s", "small", "remote", samples=5))
    decisions, _ = after(made, answered("s", "small", UNSURE), sampled("s", 0.85, B))
    assert decisions == [EndStep("s", "accepted", "small", B, 0.85), Finish("done")]


@pytest.mark.parametrize("on_exhausted", ["degrade", "stop"])
def test_candidates_that_the_budget_does_not_allow_are_done_without(on_exhausted: Any) -> None:
    """They are a second look: their hold's refusal, like their failure, leads up the ladder."""
    made = plan(step("s", "small", "remote", samples=5), on_exhausted=on_exhausted)
    for event in (HoldRefused("s", "small", "needs 900 tokens"), failed("s", "small", "timeout")):
        decisions, _ = after(made, answered("s", "small", UNSURE), event)
        assert decisions[-1] == ask("s", "remote", Earlier("small", A, Signals()))


def test_only_a_local_language_model_draws_candidates() -> None:
    """A head and a remote tier are asked once."""
    made = plan(step("s", "head", "remote", samples=5))
    decisions, _ = after(made, answered("s", "head", UNSURE))
    assert decisions[-1] == ask("s", "remote", Earlier("head", A, Signals()))


# --- skipped tiers ----------------------------------------------------------------------------------------------

WORTH = Aim(answer_micro_usd=100_000)
PRICED = Money(prices={"remote": Prices(1_000.0, 500.0)})


def hopeless(confidence: float = 0.1) -> Answered:
    """An answer after which the tier between is skipped: a dearer one is worth its price at once."""
    return Answered("s", "head", B, Signals(), confidence, PRICED)


def worth(*tiers: str, on_exhausted: Any = "degrade", aim: Aim = WORTH) -> Plan:
    return dataclasses.replace(plan(step("s", *tiers), on_exhausted=on_exhausted), aim=aim)


def test_a_skipped_tier_gets_its_turn_when_the_dear_one_fails() -> None:
    """What was passed over is asked after all, the cheapest first, before the best answer is kept."""
    made = worth("head", "small", "remote")
    decisions, _ = after(made, hopeless())
    assert decisions[-1] == ask("s", "remote", Earlier("head", B, Signals()))
    decisions, state = after(made, hopeless(), failed("s", "remote", "unavailable"))
    assert decisions == [
        Escalate("s", "remote", "small", "unavailable: why"),
        ask("s", "small", Earlier("head", B, Signals())),
    ]
    decisions = decide(answered("s", "small", SURE), state)
    assert [_plain(d) for d in decisions] == [EndStep("s", "accepted", "small", A, SURE), Finish("done")]


def test_a_skipped_tier_gets_its_turn_when_the_dear_ones_hold_is_refused() -> None:
    """Cheaper ones may still fit the budget; where it ends tasks, it ends this one."""
    refused = HoldRefused("s", "remote", "needs $1")
    decisions, _ = after(worth("head", "small", "remote"), hopeless(), refused)
    assert decisions[-1] == ask("s", "small", Earlier("head", B, Signals()))
    decisions, _ = after(worth("head", "small", "remote", on_exhausted="stop"), hopeless(), refused)
    assert decisions[-1] == Finish("budget_exhausted", "needs $1")


def test_a_skipped_tier_that_cannot_be_asked_is_noted_when_its_turn_comes() -> None:
    """It would have been asked, so it is missed; the best answer is kept."""
    decisions, _ = after(
        worth("head", "small", "remote"), hopeless(0.3), failed("s", "remote"), unavailable={"small": "no file"}
    )
    kept = EndStep("s", "degraded", "head", B, 0.3, "error: why, and no dearer tier can be asked")
    assert decisions[1:3] == [Missed("s", TIERS["small"], "no file"), kept]


def test_an_answer_that_is_good_enough_is_accepted_though_more_was_hoped_for() -> None:
    """A dearer tier was asked for its gain; when it fails, or is refused, nothing is lost."""
    sure = hopeless(0.85)
    made = worth("head", "remote", "person", aim=Aim(answer_micro_usd=10_000_000))
    decisions, _ = after(made, sure)
    assert decisions[-1] == ask("s", "remote", Earlier("head", B, Signals()))
    for event in (failed("s", "remote"), HoldRefused("s", "remote", "needs $1")):
        decisions, state = after(made, sure, event)
        assert (decisions[-1], state.outputs()) == (Finish("done"), {"s": B})


def test_candidates_that_failed_are_drawn_again_of_the_tier_that_drew_them() -> None:
    """Not of the dearer one that has answered since."""
    made = dataclasses.replace(
        plan(step("s", "small", "remote", samples=4)), aim=Aim(answer_micro_usd=10_000, second_micro_usd=20)
    )
    learnt = Rule(0.8, "as the file says", quality=Quality(("small", "small*", "remote"), (0.5, 0.9, 0.85), {}),
                  prices={"small*": Prices(0.0, 400_000.0), "remote": Prices(10.0, 500.0)},
                  taught=frozenset({"small", "small*"}))  # fmt: skip
    state = TaskState(made, rules={"s": learnt})
    asked = [
        [(d.tier.name, d.samples) for d in decide(event, state) if isinstance(d, Try)]
        for event in (
            Begin(),
            Answered("s", "small", A, Signals(), 0.3, PRICED),
            Answered("s", "remote", B, Signals(checks_failed=("format",)), 0.0, PRICED),
            AttemptFailed("s", "small", Failed(id="a", reason="error", retryable=True)),
        )
    ]
    assert asked == [[("small", 1)], [("remote", 1)], [("small", 4)], [("small", 4)]]


def test_a_weaker_answer_that_is_likelier_right_is_kept_instead() -> None:
    """Labels may tell that the cheap tier is to be believed rather than the dear one; its answer then ends the step."""
    quality = Quality(("head", "remote"), (0.95, 0.6), {})
    state = TaskState(plan(step("s", "head", "remote")), rules={"s": Rule(0.8, "as the file says", quality=quality)})
    decide(Begin(), state)
    decide(answered("s", "head", UNSURE, B), state)
    decisions = decide(answered("s", "remote", 0.7), state)
    assert [_plain(d) for d in decisions] == [EndStep("s", "accepted", "head", B, 0.95), Finish("done")]


# --- the budget and the clock -----------------------------------------------------------------------------------


def test_a_refused_hold_keeps_the_best_answer_when_degrading() -> None:
    """There is no money for better, so what there is must do."""
    decisions, _ = after(
        plan(step("s", "small", "remote")), answered("s", "small", UNSURE), HoldRefused("s", "remote", "needs $1")
    )
    assert decisions == [
        EndStep("s", "degraded", "small", A, UNSURE, "needs $1"),
        Finish("degraded", "step 's': needs $1"),
    ]


def test_a_refused_hold_without_an_answer_is_budget_exhausted() -> None:
    """With nothing to keep, the task ends for want of budget."""
    decisions, _ = after(plan(step("s", "small")), HoldRefused("s", "small", "needs 9 tokens"))
    assert decisions == [
        EndStep("s", "failed", reason="needs 9 tokens"),
        Finish("budget_exhausted", "step 's': needs 9 tokens"),
    ]


def test_a_refused_hold_without_an_answer_goes_to_a_person() -> None:
    """A person costs the budget nothing."""
    decisions, _ = after(plan(step("s", "small", "remote", "person")), HoldRefused("s", "small", "needs 9 tokens"))
    assert decisions == [
        EndStep("s", "person", "person", reason="needs 9 tokens"),
        Finish("person", "step 's': needs 9 tokens"),
    ]


def test_a_refused_hold_only_ends_its_own_step_when_degrading() -> None:
    """Other steps go on with what they cost."""
    decisions, state = after(
        plan(step("s", "small", "remote"), step("t", "head")),
        answered("s", "small", UNSURE),
        HoldRefused("s", "remote", "needs $1"),
    )
    assert decisions == [EndStep("s", "degraded", "small", A, UNSURE, "needs $1")]
    assert state.steps["t"].phase == "running"


def test_a_refused_hold_stops_the_task_when_stopping() -> None:
    """Other attempts that run are dropped, waiting steps skipped, answers that were not sure enough are not kept."""
    made = plan(step("s", "small", "remote"), step("t", "head"), step("u", "head", needs="t"), on_exhausted="stop")
    decisions, state = after(made, answered("s", "small", UNSURE), HoldRefused("s", "remote", "needs $1"))
    assert decisions == [
        EndStep("s", "skipped", reason="needs $1"),
        Drop("t"),
        EndStep("t", "skipped", reason="needs $1"),
        EndStep("u", "skipped", reason="needs $1"),
        Finish("budget_exhausted", "needs $1"),
    ]
    assert state.outputs() == {}


@pytest.mark.parametrize(("on_exhausted", "status"), [("degrade", "degraded"), ("stop", "deadline")])
def test_time_up_ends_everything(on_exhausted: Any, status: str) -> None:
    """What runs is dropped; an unsure answer is kept only where the file says so."""
    made = plan(step("s", "head", "small"), on_exhausted=on_exhausted)
    decisions, _ = after(made, answered("s", "head", UNSURE), TimeUp())
    assert decisions[0] == Drop("s")
    assert isinstance(decisions[-1], Finish)
    assert (decisions[-1].status, len(decisions)) == (status, 3)


def test_time_up_without_answers_is_a_deadline() -> None:
    """A task with an open step that nobody has answered missed its deadline."""
    decisions, state = after(plan(step("s", "head"), step("t", "head")), answered("s", "head", SURE), TimeUp())
    reason = "no time left; raise budget.task.seconds"
    assert decisions == [Drop("t"), EndStep("t", "skipped", reason=reason), Finish("deadline", reason)]
    assert state.outputs() == {"s": A}


def test_input_that_cannot_be_used_ends_the_task_before_anything_is_asked() -> None:
    """Nothing is tried, every step is skipped, the reason is the one given."""
    state = TaskState(plan(step("s", "head"), step("t", "head")))
    assert decide(Unusable("no text"), state) == [
        EndStep("s", "skipped", reason="no text"),
        EndStep("t", "skipped", reason="no text"),
        Finish("failed", "no text"),
    ]


def test_a_reason_names_its_step_once() -> None:
    """A detail that begins with the step is not given its name again."""
    decisions, _ = after(plan(step("s", "small")), HoldRefused("s", "small", "step 's' at tier 'small' needs $1"))
    assert decisions[-1] == Finish("budget_exhausted", "step 's' at tier 'small' needs $1")


# --- the graph --------------------------------------------------------------------------------------------------


def test_independent_steps_begin_together() -> None:
    """Steps that need nothing of each other run side by side."""
    decisions, _ = after(plan(step("s", "head"), step("t", "small"), step("u", "head", needs="st")))
    assert decisions == [ask("s", "head"), ask("t", "small")]


def test_a_dependent_waits_for_all_it_needs() -> None:
    """It begins with the last of its inputs, together with others that it made ready."""
    made = plan(step("s", "head"), step("t", "head"), step("u", "head", needs="st"), step("v", "small", needs="t"))
    decisions, _ = after(made, answered("s", "head", SURE))
    assert decisions == [EndStep("s", "accepted", "head", A, SURE)]
    decisions, _ = after(made, answered("s", "head", SURE), answered("t", "head", SURE, B))
    assert decisions == [EndStep("t", "accepted", "head", B, SURE), ask("u", "head"), ask("v", "small")]


def test_a_kept_answer_is_good_enough_for_dependents() -> None:
    """A degraded step has an output, so what reads it goes on; the task is degraded in the end."""
    made = plan(step("s", "head"), step("t", "head", needs="s"))
    decisions, _ = after(made, answered("s", "head", UNSURE))
    assert decisions[-1] == ask("t", "head")
    decisions, _ = after(made, answered("s", "head", UNSURE), answered("t", "head", SURE))
    assert decisions[-1] == Finish(
        "degraded", "step 's': confidence 0.50 is below 0.80, and no dearer tier can be asked"
    )


def test_what_depends_on_a_lost_step_is_skipped_all_the_way_down() -> None:
    """Skipping spreads along the graph at once, and leaves the others alone."""
    made = plan(step("s", "head"), step("t", "head", needs="s"), step("u", "head", needs="t"), step("other", "head"))
    decisions, _ = after(made, failed("s", "head"))
    assert decisions == [
        Escalate("s", "head", None, "error: why"),
        EndStep("s", "failed", reason="error: why"),
        EndStep("t", "skipped", reason="step 's' has no output"),
        EndStep("u", "skipped", reason="step 't' has no output"),
    ]


def test_a_failure_weighs_more_than_a_person() -> None:
    """The task's status is the worst of its steps'."""
    made = plan(step("s", "head", "person"), step("t", "head"), step("u", "head"))
    decisions, _ = after(made, answered("s", "head", UNSURE), answered("u", "head", UNSURE), failed("t", "head"))
    assert decisions[-1] == Finish("failed", "step 't': error: why")


def test_a_person_weighs_more_than_a_degraded_step() -> None:
    """Work for a person is not hidden behind an answer that was kept."""
    made = plan(step("s", "head"), step("t", "head", "person"))
    decisions, _ = after(made, answered("s", "head", UNSURE), answered("t", "head", UNSURE))
    assert decisions[-1] == Finish("person", "step 't': confidence 0.50 is below 0.80")


# --- too late ---------------------------------------------------------------------------------------------------


def test_nothing_is_decided_after_the_end() -> None:
    """A finished task answers every further event with nothing."""
    _, state = after(plan(step("s", "head", "small")), answered("s", "head", SURE))
    events: list[Event] = [
        Begin(),
        answered("s", "small", SURE),
        failed("s", "small", retryable=True),
        HoldRefused("s", "small", "d"),
        Unusable("d"),
        TimeUp(),
    ]
    assert [decide(event, state) for event in events] == [[]] * len(events)
    assert state.finished == Finish("done")


def test_a_step_that_is_over_stays_as_it_ended() -> None:
    """An event that comes too late for its step changes nothing, while the task goes on."""
    made = plan(step("s", "head", "small"), step("t", "head"))
    _, state = after(made, answered("s", "head", SURE))
    for event in (answered("s", "small", 1.0, B), failed("s", "small"), HoldRefused("s", "small", "d")):
        assert decide(event, state) == []
    assert state.outputs() == {"s": A}
