"""Whatever the plan and whatever happens, a task ends once, and asks in order."""

from __future__ import annotations

from typing import Any

from dispatch_plans import plan, step
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from protocols.answers import Failed, Signals
from swarm.dispatch.moves import (
    Answered,
    AttemptFailed,
    Begin,
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
from swarm.dispatch.policy import RETRIES, TaskState, decide
from swarm.plan.plan import Plan

PAID = ["code", "head", "small", "remote"]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """One to six steps; each reads any of those before it; ladders of one to five tiers, a person only at the end."""
    steps: list[Any] = []
    for i in range(draw(st.integers(1, 6))):
        needs = draw(st.sets(st.sampled_from([s.name for s in steps]))) if steps else set()
        tiers = [tier for tier in PAID if draw(st.booleans())]
        if draw(st.booleans()) or not tiers:
            tiers.append("person")
        accept_at = draw(st.sampled_from([0.0, 0.5, 0.8, 1.0]))
        steps.append(step(f"s{i}", *tiers, needs=sorted(needs), accept_at=accept_at))
    return plan(*steps, on_exhausted=draw(st.sampled_from(["stop", "degrade"])))


class Tasks(RuleBasedStateMachine):
    """Plays the part of the dispatcher's shell, and keeps its own books."""

    @initialize(made=plans(), unavailable=st.sets(st.sampled_from(PAID)), usable=st.booleans() | st.just(True))
    def begin(self, made: Plan, unavailable: set[str], usable: bool) -> None:
        self.plan = made
        self.unavailable = dict.fromkeys(unavailable, "no key")
        self.state = TaskState(made, self.unavailable)
        self.running: dict[str, str] = {}
        self.ended: dict[str, EndStep] = {}
        self.asked: dict[str, list[str]] = {s.name: [] for s in made.steps}
        self.finishes: list[Finish] = []
        self.feed(Begin() if usable else Unusable("no text"))

    def feed(self, event: Event) -> None:
        """What the shell does with the decisions on one event, and what must hold for each."""
        if isinstance(event, Answered | AttemptFailed | HoldRefused):
            self.running.pop(event.step, None)
        for decision in decide(event, self.state):
            assert not self.finishes, "nothing comes after the end"
            match decision:
                case Try(step=name, tier=tier):
                    self.check_try(name, tier.name)
                    self.running[name] = tier.name
                    self.asked[name].append(tier.name)
                case Drop(step=name):
                    assert name in self.running
                    del self.running[name]
                case EndStep(step=name):
                    assert name not in self.ended, "a step ends once"
                    assert name not in self.running, "an attempt is over or dropped before its step ends"
                    self.check_end(decision)
                    self.ended[name] = decision
                case Missed(tier=tier):
                    assert tier.name in self.unavailable
                case Finish():
                    self.finishes.append(decision)
                case Escalate(step=name, tier=tier_name):
                    assert self.asked[name][-1] == tier_name

    def check_try(self, name: str, tier: str) -> None:
        planned = self.plan.step(name)
        ladder = [t.name for t in planned.ladder]
        assert name not in self.running, "one attempt of a step at a time"
        assert name not in self.ended
        assert tier not in self.unavailable
        assert tier != "person"
        assert all(self.ended[need].output is not None for need in planned.needs), "inputs are there"
        places = [ladder.index(t) for t in (*self.asked[name], tier)]
        assert places == sorted(places), "up the ladder, never down"
        assert self.asked[name].count(tier) <= RETRIES

    def check_end(self, end: EndStep) -> None:
        planned = self.plan.step(end.step)
        assert (end.output is not None) == (end.status in ("accepted", "degraded"))
        match end.status:
            case "accepted":
                assert end.confidence is not None
                assert end.confidence >= planned.accept_at
            case "degraded":
                assert end.confidence is not None
                assert end.confidence < planned.accept_at
            case "person":
                assert planned.ladder[-1].kind == "person"
            case "skipped" | "failed":
                assert end.reason

    def an_attempt(self, data: st.DataObject) -> tuple[str, str]:
        name = data.draw(st.sampled_from(sorted(self.running)))
        return name, self.running[name]

    @precondition(lambda self: self.running)
    @rule(data=st.data(), confidence=st.sampled_from([0.0, 0.4, 0.5, 0.79, 0.8, 1.0]))
    def answer(self, data: st.DataObject, confidence: float) -> None:
        name, tier = self.an_attempt(data)
        self.feed(Answered(name, tier, {"by": tier}, Signals(), confidence))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), retryable=st.booleans(), no_hold=st.booleans())
    def fail(self, data: st.DataObject, retryable: bool, no_hold: bool) -> None:
        name, tier = self.an_attempt(data)
        self.feed(AttemptFailed(name, tier, Failed(id="a", reason="error", retryable=retryable), no_hold))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        name, tier = self.an_attempt(data)
        self.feed(HoldRefused(name, tier, "no budget"))

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def come_too_late(self, data: st.DataObject) -> None:
        """An event of an attempt whose step is over."""
        name = data.draw(st.sampled_from(sorted(self.ended)))
        before = self.state.steps[name].end
        self.feed(Answered(name, "small", {"by": "nobody"}, Signals(), 1.0))
        assert self.state.steps[name].end == before

    @rule(now=st.sampled_from([False, False, False, True]))
    def run_out_of_time(self, now: bool) -> None:
        if now:
            self.feed(TimeUp())

    def teardown(self) -> None:
        """However it went so far, answering what is asked brings the task to its end."""
        if not hasattr(self, "state"):
            return
        for _ in range(sum(len(s.ladder) for s in self.plan.steps) * (1 + RETRIES) + 1):
            if self.finishes:
                break
            assert self.running, "a task that is not over waits for something"
            name, tier = next(iter(self.running.items()))
            self.feed(Answered(name, tier, {"by": tier}, Signals(), 0.3))
        assert len(self.finishes) == 1
        assert set(self.ended) == {s.name for s in self.plan.steps}
        assert not self.running
        self.check_verdict(self.finishes[0])

    def check_verdict(self, finish: Finish) -> None:
        statuses = {end.status for end in self.ended.values()}
        if finish.status == "done":
            assert statuses == {"accepted"}
        if finish.status == "degraded":
            assert statuses <= {"accepted", "degraded"}
            assert "degraded" in statuses
        if finish.status == "person":
            assert "person" in statuses
            assert "failed" not in statuses
        if finish.status in ("budget_exhausted", "deadline", "failed"):
            assert finish.reason


TestTasks = Tasks.TestCase
TestTasks.settings = settings(max_examples=200, stateful_step_count=15, deadline=None)
