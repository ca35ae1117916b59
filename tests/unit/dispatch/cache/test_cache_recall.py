"""Answers that need no attempt, and what becomes of those who wait for one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from cache_desk import COST, Desk, records

from protocols.answers import Answer, Ask, Usage
from swarm.dispatch.cache.statistics import CacheStatistics
from swarm.errors import StoreError
from swarm.plan.plan import Caching
from swarm.state.records import MemoryRecords, Record
from swarm.testing import VirtualClock

EXACT = Caching("exact")


async def test_the_same_input_is_answered_again_with_where_it_came_from() -> None:
    """By a later run of the same swarm: the answer as it was, its origin, and what it had cost."""
    kept = records()
    assert await Desk(EXACT, kept).answer("red ball", "t-1") is None
    again = await Desk(EXACT, kept).ask("red ball", "t-9")
    assert again is not None
    assert (again.how, again.answer.output, again.confidence, again.saved) == ("exact", {"label": "ball"}, 0.9, COST)
    assert again.reason == "the same input was answered in run r-1, task t-1"


async def test_another_input_tenant_or_model_is_not() -> None:
    """The name of an answer holds all that it depends on."""
    kept = records()
    await Desk(EXACT, kept, tenant="a").answer("red ball", "t-1")
    assert await Desk(EXACT, kept, tenant="a").ask("red balls", "t-2") is None
    assert await Desk(EXACT, kept, tenant="b").ask("red ball", "t-2") is None
    assert await Desk(EXACT, kept).ask("red ball", "t-2") is None
    assert await Desk(EXACT, kept, tenant="a", models="2").ask("red ball", "t-2") is None
    assert await Desk(EXACT, kept, tenant="a").ask("red ball", "t-2") is not None


async def test_a_step_without_a_cache_is_never_asked_for() -> None:
    """Nothing is found, kept or counted."""
    kept = records()
    desk = Desk(Caching("off"), kept)
    assert await desk.answer("red ball", "t-1") is None
    assert await desk.answer("red ball", "t-2") is None
    assert await kept.scan("answer", "-/p") == []
    assert desk.recall.statistics() == {}


async def test_an_answer_lives_as_long_as_its_step_says() -> None:
    """After its time it is computed anew."""
    clock = VirtualClock()
    desk = Desk(Caching("exact", ttl_s=60.0), MemoryRecords(lambda: None, clock), clock=clock)
    await desk.answer("red ball", "t-1")
    clock.advance(59)
    assert await desk.ask("red ball", "t-2") is not None
    clock.advance(2)
    assert await desk.ask("red ball", "t-3") is None


async def test_equal_questions_at_the_same_time_are_computed_once() -> None:
    """All get the one answer, though nothing was kept before."""
    desk = Desk(EXACT, records())
    assert await desk.ask("red ball", "t-0") is None
    waiting = [asyncio.create_task(desk.ask("red ball", f"t-{i}")) for i in range(1, 6)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    await desk.tell("red ball", "t-0")
    found = await asyncio.gather(*waiting)
    assert [f and f.how for f in found] == ["together"] * 5
    statistics = desk.recall.statistics()["intent"]
    assert statistics == CacheStatistics(asked=6, together=5, saved=COST + COST + COST + COST + COST)


async def test_one_of_those_who_wait_takes_over_from_a_cancelled_task() -> None:
    """Just one: it is still computed once."""
    desk = Desk(EXACT, records())
    await desk.ask("red ball", "t-0")
    waiting = {i: asyncio.create_task(desk.ask("red ball", f"t-{i}")) for i in (1, 2, 3)}
    await asyncio.sleep(0)
    desk.recall.over("t-0")
    done, _ = await asyncio.wait(waiting.values(), timeout=0.05)
    assert [task.result() for task in done] == [None]
    leader = next(i for i, task in waiting.items() if task.done())
    await desk.tell("red ball", f"t-{leader}")
    assert sum(f is not None for f in await asyncio.gather(*waiting.values())) == 2


async def test_a_failure_is_not_passed_on() -> None:
    """Those who wait each try for themselves, side by side, and the first answer is kept."""
    desk = Desk(EXACT, records())
    await desk.ask("red ball", "t-0")
    waiting = [asyncio.create_task(desk.ask("red ball", f"t-{i}")) for i in (1, 2)]
    await asyncio.sleep(0)
    desk.recall.not_kept("t-0", "intent")
    assert await asyncio.gather(*waiting) == [None, None]
    await desk.tell("red ball", "t-2")
    assert await desk.ask("red ball", "t-3") is not None


async def test_a_follower_who_is_cancelled_leaves_the_others_waiting() -> None:
    """And the task that computes is not disturbed."""
    desk = Desk(EXACT, records())
    await desk.ask("red ball", "t-0")
    gone, stays = (asyncio.create_task(desk.ask("red ball", f"t-{i}")) for i in (1, 2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    desk.recall.over("t-1")
    await desk.tell("red ball", "t-0")
    assert await stays is not None


async def test_a_task_that_is_over_twice_harms_nobody() -> None:
    """Neither one that never asked, nor one whose answer was kept."""
    desk = Desk(EXACT, records())
    await desk.answer("red ball", "t-0")
    for task in ("t-0", "t-0", "t-7"):
        desk.recall.over(task)
        desk.recall.not_kept(task, "intent")
        await desk.tell("blue", task)
    assert (await desk.ask("red ball", "t-8")) is not None


class Broken(MemoryRecords):
    """Records on a disk that has gone."""

    async def get(self, kind: str, scope: str, key: str) -> Record | None:
        raise StoreError("the disk is gone")

    async def put(self, records: object, *, new: bool = False) -> None:
        raise StoreError("the disk is gone")


async def test_a_cache_that_fails_costs_its_answers_and_no_task() -> None:
    """Everything is computed, and those who wait still get it."""
    desk = Desk(EXACT, Broken(lambda: None))
    await desk.recall.open()
    assert await desk.ask("red ball", "t-0") is None
    waiting = asyncio.create_task(desk.ask("red ball", "t-1"))
    await asyncio.sleep(0)
    await desk.tell("red ball", "t-0")
    assert (await waiting) is not None
    assert await desk.ask("red ball", "t-2") is None
    await desk.recall.close()


async def test_a_record_of_another_program_is_no_answer() -> None:
    """It is computed, and kept in its place."""
    kept = records()
    desk = Desk(EXACT, kept)
    await desk.answer("red ball", "t-0")
    found = (await kept.scan("answer", "-/p"))[0]
    await kept.put([Record(kind=found.kind, scope=found.scope, key=found.key, body=b"\x93")])
    assert await desk.answer("red ball", "t-1") is None
    assert await desk.answer("red ball", "t-2") is not None


@pytest.mark.parametrize("kind", ["exact", "semantic"])
async def test_without_an_embedder_a_semantic_cache_is_an_exact_one(kind: str) -> None:
    """What cannot be compared is not reused."""
    desk = Desk(replace(EXACT, kind=kind), records())  # type: ignore[arg-type]
    await desk.recall.open()
    assert await desk.answer("red ball", "t-0") is None
    assert await desk.answer("red  ball", "t-1") is None
    assert await desk.answer("red ball", "t-2") is not None


async def test_what_a_tier_said_is_remembered_only_where_the_step_has_a_cache() -> None:
    """And is not found when the cache fails."""
    ask = Ask(id="a", task="t", step="intent", specialist="i", tier="head", input={"text": "hi"}, max_tokens=9)
    reply = Answer(id="a", output={"label": "x"}, usage=Usage(tokens_in=5))
    with_one, without, broken = (
        Desk(EXACT, records()), Desk(Caching("off"), records()), Desk(EXACT, Broken(lambda: None))
    )  # fmt: skip
    for desk in (with_one, without, broken):
        await desk.recall.heard(desk.step, ask, reply)
    found = [await desk.recall.said(desk.step, ask) for desk in (with_one, without, broken)]
    assert [f is not None for f in found] == [True, False, False]
