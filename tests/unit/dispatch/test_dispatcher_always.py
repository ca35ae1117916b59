"""Whatever plans, budgets, answers, deaths and cancellations come together: the books are right in the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from dispatch_plans import plan, step
from dispatch_stage import RUN, Stage, staged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.answers import Ask
from protocols.events import TaskAccepted, TaskFinished
from protocols.money import Amount, Limit
from protocols.tasks import Result
from swarm.bus.script import Reply
from swarm.plan.plan import Plan
from swarm.testing import Dies, Fails, Hangs, Refuses, Says

TIERS = ["head", "small", "remote"]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    steps: list[Any] = []
    for i in range(draw(st.integers(1, 4))):
        needs = draw(st.sets(st.sampled_from([s.name for s in steps]))) if steps else set()
        tiers = [tier for tier in TIERS if draw(st.booleans())] or ["small"]
        steps.append(step(f"s{i}", *tiers, *(["person"] if draw(st.booleans()) else []), needs=sorted(needs)))
    limit = st.none() | st.integers(0, 900)
    return plan(
        *steps,
        on_exhausted=draw(st.sampled_from(["stop", "degrade"])),
        task=Limit(tokens=draw(limit), micro_usd=draw(st.none() | st.integers(0, 3000))),
        run=Limit(tokens=draw(limit)),
    )


replies: st.SearchStrategy[Reply] = st.one_of(
    st.builds(Says, st.just({"label": "a"}), st.sampled_from([0.3, 0.9]), st.integers(0, 150)),
    st.builds(Says, st.just({"label": "b"}), st.sampled_from([0.3, 0.9]), st.integers(0, 150)),
    st.builds(Fails, retryable=st.booleans(), unknown=st.booleans(), tokens=st.integers(0, 50)),
    st.sampled_from([Hangs(), Refuses(), Dies()]),
)


@dataclass(frozen=True)
class Course:
    """What happens to one task: when it is begun, and cancelled, counted in turns of the event loop."""

    begun: int
    cancelled: int | None


courses = st.builds(Course, st.integers(0, 30), st.none() | st.integers(0, 120))


async def play(made: Plan, said: list[Reply], tasks: list[Course]) -> None:
    turn = iter(said)

    def script(ask: Ask) -> Reply:
        reply = next(turn, None)
        if reply is None:
            return Says({"label": "a"}, 0.9, tokens=0 if ask.tier == "head" else 50)
        if isinstance(reply, Says | Fails) and ask.tier == "head":
            return Says({"label": "a"}, 0.3)  # what holds nothing uses nothing
        return reply

    async with staged(made, script, hosts=2, unavailable={}) as stage:
        running = await asyncio.gather(*(_live(stage, f"t-{i}", course) for i, course in enumerate(tasks)))
        await check(stage, made, [result for result in running if result is not None])


async def _live(stage: Stage, id: str, course: Course) -> Result | None:
    for _ in range(course.begun):
        await asyncio.sleep(0)
    task = asyncio.create_task(stage.run(id, left_ms=50))
    if course.cancelled is not None:
        for _ in range(course.cancelled):
            await asyncio.sleep(0)
        task.cancel()
    try:
        return await asyncio.wait_for(task, 60)
    except asyncio.CancelledError:
        return None


async def check(stage: Stage, made: Plan, returned: list[Result]) -> None:
    kept = {result.task: result for result in await stage.store.results(RUN)}
    for result in returned:
        assert kept[result.task] == result, "what the caller got is what the journal has"
    accepted = {event.task for event in stage.events if isinstance(event, TaskAccepted)}
    finished = [event.task for event in stage.events if isinstance(event, TaskFinished)]
    assert accepted <= set(kept)
    assert sorted(finished) == sorted(kept), "told once each"

    attempts = await stage.attempts()
    assert len({attempt.id for attempt in attempts}) == len(attempts)
    asked = {ask.id for ask in stage.script.asks}
    assert asked <= {attempt.id for attempt in attempts}, "whatever was asked is in the journal"

    run = await stage.balance()
    assert run.held == Amount()
    assert run.limit.tokens is None or run.settled.tokens <= run.limit.tokens
    total = Amount()
    for id, result in kept.items():
        balance = await stage.balance(f"task:{id}")
        assert balance.held == Amount()
        assert balance.limit.tokens is None or balance.settled.tokens <= balance.limit.tokens
        assert balance.settled.tokens <= result.cost.tokens, "an account is charged what was used, or the hold"
        total += balance.settled
        if result.status not in ("cancelled",):
            assert set(result.steps) == {step.name for step in made.steps}
    assert (total.tokens, total.micro_usd) == (run.settled.tokens, run.settled.micro_usd)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(plans(), st.lists(replies, max_size=25), st.lists(courses, min_size=1, max_size=5))
def test_every_task_ends_once_and_every_hold_with_it(made: Plan, said: list[Reply], tasks: list[Course]) -> None:
    """Nothing is left running, held, untold or paid twice."""
    asyncio.run(play(made, said, tasks))
