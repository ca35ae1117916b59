"""A task is gone on with from its journal: what was finished is neither asked nor paid again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest
from dispatch_plans import plan, step
from dispatch_stage import RUN, staged
from hypothesis import given
from hypothesis import strategies as st

from protocols.answers import Signals
from protocols.money import Limit
from protocols.records import Attempt
from protocols.tasks import Task
from swarm.dispatch import moves
from swarm.dispatch.again import Past, differing, in_order, retrace
from swarm.dispatch.dispatcher import Dispatcher
from swarm.dispatch.journal import encode
from swarm.dispatch.policy import TaskState, decide
from swarm.plan.plan import Plan
from swarm.testing import Fails, Hangs, Says

A, B = {"label": "a"}, {"label": "b"}
UNSURE = Says(A, confidence=0.5, tokens=60)
SURE = Says(A, confidence=0.9, tokens=60)
CHAIN = plan(step("s", "small", "remote"), step("t", "small", needs="s"), step("u", "small", needs="t"))
ORDER = ["s/small", "s/remote", "t/small", "u/small"]
ANSWERS: dict[str, Any] = {"s/small": UNSURE, "s/remote": Says(B, 0.95, tokens=60), "t": SURE, "u": SURE}


@pytest.mark.parametrize(("asks", "at"), [(1, "s/small"), (2, "s/remote"), (3, "t"), (4, "u")])
async def test_a_task_is_gone_on_with_where_it_stood(asks: int, at: str) -> None:
    """Whenever the dispatcher stops, what was finished is not asked again, and the result is the same."""
    async with staged(CHAIN, {**ANSWERS, at: [Hangs(), ANSWERS[at]]}) as stage:
        task = Task(id="t-1", run=RUN, input={"text": "hi"})
        left = asyncio.create_task(stage.dispatcher.run(task, stage.events.append))
        while len(stage.script.asks) < asks:  # noqa: ASYNC110 (the script tells nobody)
            await asyncio.sleep(0)
        journalled = await stage.attempts()
        assert len(journalled) == asks - 1
        result = await Dispatcher(stage.dispatcher._setting).run(task, stage.events.append, Past(journalled, {}))
        assert (result.status, result.output) == ("done", {"s": B, "t": A, "u": A})
        assert [f"{a.step}/{a.tier}" for a in stage.script.asks] == [*ORDER[:asks], *ORDER[asks - 1 :]]
        assert result.cost.tokens == 4 * 60
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)


def happened(order: Sequence[int], confidences: Sequence[float]) -> tuple[Plan, list[Attempt], TaskState]:
    """Some tasks' worth of events, decided on one by one, with the attempts that a journal would keep."""
    made = plan(step("a", "head", "small", "person"), step("b", "small"), step("c", "code", needs=["a", "b"]))
    state = TaskState(made)
    open_ = {d.step: d for d in decide(moves.Begin(), state) if isinstance(d, moves.Try)}
    attempts: list[Attempt] = []
    for i, (which, sure) in enumerate(zip(order, confidences, strict=True)):
        if not open_:
            break
        name = sorted(open_)[which % len(open_)]
        tried = open_.pop(name)
        event = moves.Answered(name, tried.tier.name, A, Signals(p=0.5), sure)
        attempts.append(Attempt(id=f"a-{i}", task="t-1", step=name, tier=tried.tier.name, outcome="", place=i,
                                event=encode(event)))  # fmt: skip
        open_ |= {d.step: d for d in decide(event, state) if isinstance(d, moves.Try)}
    return made, attempts, state


EIGHT = {"min_size": 8, "max_size": 8}


@given(st.lists(st.integers(0, 5), **EIGHT), st.lists(st.floats(0, 1), **EIGHT), st.integers(0, 8))
def test_a_journal_brings_a_task_to_where_it_stood(order: list[int], sure: list[float], cut: int) -> None:
    """Whatever happened in whatever order: what is decided again brings about the state that was."""
    made, attempts, _ = happened(order[:cut], sure[:cut])
    _, _, state = happened(order[:cut], sure[:cut])
    random.Random(cut).shuffle(attempts)  # the store promises no order
    known = retrace(made, Past(attempts, {}), {})
    assert known.state.steps == state.steps and known.state.known == state.known
    assert known.state.finished == state.finished
    running = {name for name, each in state.steps.items() if each.phase == "running"}
    assert {d.step for d in known.begin} == (set() if state.finished else running)
    assert known.place == len(attempts)


async def test_another_threshold_is_tried_on_what_happened() -> None:
    """Decisions that would differ are shown with what was spent after them."""
    strict = plan(step("s", "small", "remote", accept_at=0.8))
    async with staged(strict, {"s/small": Says(A, 0.7), "s/remote": Says(B, 0.9, micro_usd=500)}) as stage:
        await stage.run()
        attempts = await stage.attempts()
    assert list(differing(strict, attempts, {})) == []
    (found,) = differing(plan(step("s", "small", "remote", accept_at=0.6)), attempts, {})
    assert (found.step, found.tier, found.then, found.now, found.saved) == ("s", "small", "escalated", "accepted", 500)


async def test_a_journal_says_in_which_order_it_happened() -> None:
    """Attempts that end within the same millisecond keep their order."""
    async with staged(CHAIN, ANSWERS) as stage:
        await stage.run()
        assert [a.place for a in in_order(await stage.attempts())] == [0, 1, 2, 3]
        assert [a.step for a in in_order(await stage.attempts())] == ["s", "s", "t", "u"]


async def test_a_failure_and_a_refusal_are_retraced_too() -> None:
    """A retry, a refused hold and an answer kept for want of better are decided again as they were."""
    made = plan(step("s", "small", "remote"), task=Limit(micro_usd=10), on_exhausted="degrade")
    async with staged(made, {"s/small": [Fails("error", retryable=True), UNSURE], "s/remote": SURE}) as stage:
        result = await stage.run()
        known = retrace(made, Past(await stage.attempts(), {}), {})
    assert result.status == "degraded"
    assert known.state.finished is not None and known.state.finished.status == "degraded"
    assert known.begin == []
    assert [w.decision for w in known.why] == [w.decision for w in result.why]
