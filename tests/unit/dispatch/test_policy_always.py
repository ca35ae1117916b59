"""Whatever the plan and whatever happens, a task ends once, and asks each tier once, and once for candidates."""

from __future__ import annotations

import dataclasses
from typing import Any

from dispatch_plans import plan, step
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from protocols.answers import Failed, Signals
from swarm.dispatch.judge import Money
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
from swarm.dispatch.quality import Quality
from swarm.dispatch.rules import Prices, Rule
from swarm.dispatch.ways import ways
from swarm.plan.plan import Aim, Plan

PAID = ["code", "head", "small", "remote"]
OFTEN = st.sampled_from([True, True, True, False])
MONEY = Money(prices={"remote": Prices(1_000.0, 500.0)})
PRIORS = (0.5, 0.6, 0.7, 0.8, 0.9)  # of the ways to an answer, as labels may have taught them


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """One to four steps; each reads any of those before it; ladders of one to five tiers, a person only at the end."""
    steps: list[Any] = []
    for i in range(draw(st.integers(1, 4))):
        needs = draw(st.sets(st.sampled_from([s.name for s in steps]))) if steps else set()
        tiers = [tier for tier in PAID if draw(OFTEN)]
        if draw(st.booleans()) or not tiers:
            tiers.append("person")
        accept_at = draw(st.sampled_from([0.8, 1.0, 0.5, 0.0]))
        samples = draw(st.sampled_from([3, 1]))
        steps.append(step(f"s{i}", *tiers, needs=sorted(needs), accept_at=accept_at, samples=samples))
    aim = draw(st.sampled_from([Aim(answer_micro_usd=1_000_000), Aim(), Aim(answer_micro_usd=500)]))
    return dataclasses.replace(plan(*steps, on_exhausted=draw(st.sampled_from(["stop", "degrade"]))), aim=aim)


@st.composite
def taught(draw: st.DrawFn, made: Plan) -> dict[str, Rule]:
    """For some steps what labels may have taught: how often each way to an answer is right."""
    rules = {}
    for each in made.steps:
        names = tuple(way.name for way in ways(each))
        if names and draw(st.booleans()):
            quality = Quality(names, tuple(draw(st.permutations(PRIORS))[: len(names)]), {})
            rules[each.name] = Rule(each.accept_at, "as the file says", quality=quality, taught=frozenset(names))
    return rules


class Tasks(RuleBasedStateMachine):
    """Plays the part of the dispatcher's shell, and keeps its own books."""

    @initialize(data=st.data(), made=plans(), unavailable=st.sets(st.sampled_from(PAID), max_size=2), usable=OFTEN)
    def begin(self, data: st.DataObject, made: Plan, unavailable: set[str], usable: bool) -> None:
        self.plan = made
        self.unavailable = dict.fromkeys(unavailable, "no key")
        self.state = TaskState(made, self.unavailable, data.draw(taught(made)))
        self.running: dict[str, tuple[str, int]] = {}
        self.ended: dict[str, EndStep] = {}
        self.asked: dict[str, list[tuple[str, int]]] = {s.name: [] for s in made.steps}
        self.said: dict[str, list[str]] = {s.name: [] for s in made.steps}  # who has answered
        self.finishes: list[Finish] = []
        self.feed(Begin() if usable else Unusable("no text"))

    def feed(self, event: Event) -> None:
        """What the shell does with the decisions on one event, and what must hold for each."""
        if isinstance(event, Answered | AttemptFailed | HoldRefused):
            self.running.pop(event.step, None)
        for decision in decide(event, self.state):
            assert not self.finishes, "nothing comes after the end"
            match decision:
                case Try(step=name, tier=tier, samples=samples):
                    self.check_try(name, tier.name, samples)
                    self.running[name] = (tier.name, samples)
                    self.asked[name].append((tier.name, samples))
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
                    assert self.asked[name][-1][0] == tier_name

    def check_try(self, name: str, tier: str, samples: int) -> None:
        planned = self.plan.step(name)
        ladder = [t.name for t in planned.ladder]
        assert name not in self.running, "one attempt of a step at a time"
        assert name not in self.ended
        assert tier not in self.unavailable
        assert tier != "person"
        assert all(self.ended[need].output is not None for need in planned.needs), "inputs are there"
        places = [ladder.index(t) for t, _ in (*self.asked[name], (tier, samples))]
        if self.plan.aim.answer_micro_usd is None:
            assert places == sorted(places), "in order, where nothing is weighed"
        assert self.asked[name].count((tier, samples)) <= RETRIES, "each is asked once, and once more if that may pass"
        if samples > 1:
            assert (tier, samples) == ("small", planned.samples)
            assert tier in self.said[name], "candidates are a second look"

    def check_end(self, end: EndStep) -> None:
        planned = self.plan.step(end.step)
        assert (end.output is not None) == (end.status in ("accepted", "degraded"))
        if end.output is not None:
            assert end.output == {"by": end.tier}
            assert end.tier in self.said[end.step], "what is kept was said"
        match end.status:
            case "accepted":
                assert end.confidence is not None
                assert end.confidence >= planned.accept_at
            case "degraded" if planned.name not in self.state.rules:
                assert end.confidence is not None
                assert end.confidence < planned.accept_at
            case "person":
                assert planned.ladder[-1].kind == "person"
            case "skipped" | "failed":
                assert end.reason

    def an_attempt(self, data: st.DataObject) -> tuple[str, str, int]:
        name = data.draw(st.sampled_from(sorted(self.running)))
        return name, *self.running[name]

    @precondition(lambda self: self.running)
    @rule(data=st.data(), confidence=st.sampled_from([0.4, 0.1, 0.79, 0.5, 0.0, 0.8, 1.0]))
    def answer(self, data: st.DataObject, confidence: float) -> None:
        name, tier, samples = self.an_attempt(data)
        self.said[name].append(tier)
        self.feed(Answered(name, tier, {"by": tier}, Signals(), confidence, MONEY, samples=samples))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), retryable=st.booleans(), no_hold=st.booleans())
    def fail(self, data: st.DataObject, retryable: bool, no_hold: bool) -> None:
        name, tier, _ = self.an_attempt(data)
        self.feed(AttemptFailed(name, tier, Failed(id="a", reason="error", retryable=retryable), no_hold))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        name, tier, _ = self.an_attempt(data)
        self.feed(HoldRefused(name, tier, "no budget"))

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def come_too_late(self, data: st.DataObject) -> None:
        """An event of an attempt whose step is over."""
        name = data.draw(st.sampled_from(sorted(self.ended)))
        before = self.state.steps[name].end
        self.feed(Answered(name, "small", {"by": "nobody"}, Signals(), 1.0))
        assert self.state.steps[name].end == before

    @rule(now=st.integers(0, 15))
    def run_out_of_time(self, now: int) -> None:
        if now == 15:
            self.feed(TimeUp())

    def teardown(self) -> None:
        """However it went so far, answering what is asked brings the task to its end."""
        if not hasattr(self, "state"):
            return
        for _ in range(sum(len(ways(s)) for s in self.plan.steps) * (1 + RETRIES) + 1):
            if self.finishes:
                break
            assert self.running, "a task that is not over waits for something"
            name, (tier, samples) = next(iter(self.running.items()))
            self.said[name].append(tier)
            self.feed(Answered(name, tier, {"by": tier}, Signals(), 0.3, MONEY, samples=samples))
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
TestTasks.settings = settings(max_examples=250, stateful_step_count=20, deadline=None)
