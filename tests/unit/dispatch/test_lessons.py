"""What runs teach about local answers: what is kept, with what chance it was seen, and what is made of it later."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from dispatch_plans import REMOTE
from watch_stage import CERTIFIED, NOTHING, A, B, records, said, watched, watching

from protocols.answers import Earlier, Signals
from swarm.dispatch.explore import effective, weights
from swarm.dispatch.lasting import Lasting
from swarm.dispatch.learnt import pooled
from swarm.dispatch.lessons import LARGEST, Gathered, Lesson, Lessons, gathered
from swarm.dispatch.rules import Rule
from swarm.plan.plan import Plan, Tier
from swarm.state.records import MemoryRecords
from swarm.testing import Answers, Fails, Says

LADDER = ("head", "small", "remote")
GIVEN = {"text": "hi"}


async def kept_of(kept: MemoryRecords, made: Plan, models: dict[str, str] | None = None) -> Gathered:
    found, _ = await gathered(kept, "-/p", made, models)
    return found["s"]


async def one_escalation(
    made: Plan, kept: MemoryRecords, dear: Earlier, rule: Rule = CERTIFIED, task: str = "t-1"
) -> None:
    async with watching(made, {}, kept, rule=rule, models={"head": "h1", "small": "s1"}) as (watch, _):
        watch.escalated(task, made.step("s"), GIVEN, (said("head", A, 0.4), said("small", B, 0.5)), dear)


async def explored(made: Plan, kept: MemoryRecords, answers: Answers, *, tier: str = "head") -> list[str]:
    """Look behind one kept answer; the tiers that were asked."""
    async with watching(made, answers, kept) as (watch, script):
        watch.accepted("t-1", made.step("s"), GIVEN, said(tier, A))
        await watch.close()
        return [ask.tier for ask in script.asks]


# --- what is kept -----------------------------------------------------------------------------------------------


async def test_an_escalated_answer_is_labelled_by_the_dearest_paid_tier() -> None:
    """What each local tier said, right where it is the same; it was sure to be seen."""
    kept, made = records(), watched(*LADDER)
    await one_escalation(made, kept, said("remote", B))
    found = await kept_of(kept, made)
    (item,) = found.taught
    assert {tier: seen.correct for tier, seen in item.seen.items()} == {"head": False, "small": True}
    assert (item.seen["head"].signals, item.propensity, found.teacher) == (Signals(p=0.4), 1.0, "remote")
    (record,) = await kept.scan("label", "-/p")
    assert record.at == 500.0 and record.expires is not None


async def test_an_answer_that_was_looked_behind_is_labelled_with_the_chance_it_had() -> None:
    """The local tier that had not been asked is asked too, before the dearest, so that the lesson tells of it."""
    kept, made = records(), watched(*LADDER, explore=0.9999)
    asked = await explored(made, kept, {"s/small": Says(B, 0.6), "s/remote": Says(A, 0.95)})
    assert asked == ["small", "remote"]
    (item,) = (await kept_of(kept, made)).taught
    assert {tier: seen.correct for tier, seen in item.seen.items()} == {"head": True, "small": False}
    assert item.propensity == 0.9999


async def test_where_nothing_is_kept_only_the_dearest_is_asked() -> None:
    """Without records the other local tiers are left in peace."""
    made = watched(*LADDER)
    async with watching(made, {"s": A}, None) as (watch, script):
        watch.accepted("t-1", made.step("s"), GIVEN, said("head", A))
        watch.escalated("t-2", made.step("s"), GIVEN, (said("head", A),), said("remote", A))
        await watch.close()
        assert [ask.tier for ask in script.asks] == ["remote"]


FAILED = Signals(checks_failed=("in_message:x",))


async def test_a_judge_who_says_nothing_usable_teaches_nothing() -> None:
    """It failed, or its answer did not pass the free checks."""
    kept, made = records(), watched("head", "remote")
    for dear in (Fails(), Says(A, signals=FAILED)):
        await explored(made, kept, {"s/remote": dear})
    await one_escalation(watched(*LADDER), kept, Earlier("remote", A, FAILED))
    assert await kept.scan("label", "-/p") == []


async def test_a_long_input_is_not_kept_and_what_it_teaches_is() -> None:
    """Otherwise long messages would be a region that was never seen."""
    kept, made = records(), watched(*LADDER)
    async with watching(made, {}, kept) as (watch, _):
        long = {"text": "x" * LARGEST}
        watch.escalated("t-1", made.step("s"), long, (said("head", A),), said("remote", A))
    (record,) = await kept.scan("label", "-/p")
    assert len(record.body) < 1000
    assert (await kept_of(kept, made)).taught[0].seen["head"].correct


# --- a plain sample ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aim", "rule", "plain"),
    [
        ({"explore": 1.0}, CERTIFIED, True),
        ({"explore": 0.0}, NOTHING, True),  # everything escalates
        ({"explore": 0.0}, CERTIFIED, False),  # what is kept is never seen
        ({"explore": 1.0, "answer_micro_usd": 100}, CERTIFIED, False),  # some are not worth asking about
    ],
)
async def test_only_where_every_answer_could_be_seen_is_there_a_plain_sample(
    aim: dict[str, Any], rule: Rule, plain: bool
) -> None:
    """An escalation of a run in which some answers have no chance to be seen shows nothing about all."""
    kept, made = records(), watched(*LADDER, **aim)
    await one_escalation(made, kept, said("remote", A), rule)
    assert [item.plain for item in (await kept_of(kept, made)).taught] == [plain]


async def test_what_a_cheaper_paid_tier_settles_is_not_seen() -> None:
    """The dearest of two teaches, and not for a plain sample; the cheaper one does not teach."""
    kept, made = records(), watched(*LADDER)
    dear = Tier("dear", "remote", REMOTE)
    made = dataclasses.replace(made, steps=(dataclasses.replace(made.steps[0], ladder=(*made.steps[0].ladder, dear)),))
    await one_escalation(made, kept, said("remote", A), task="t-1")
    await one_escalation(made, kept, said("dear", A), task="t-2")
    found = await kept_of(kept, made)
    assert (found.teacher, [item.plain for item in found.taught]) == ("dear", [False])


async def test_a_lesson_that_lacks_a_local_tier_is_no_part_of_the_plain_sample() -> None:
    """Nobody knows whether that one would have been believed."""
    kept, made = records(), watched(*LADDER)
    await explored(made, kept, {"s/small": Fails(), "s/remote": A})
    (item,) = (await kept_of(kept, made)).taught
    assert list(item.seen) == ["head"] and not item.plain


async def test_the_plain_sample_and_the_weights_tell_the_truth_about_all_that_was_asked() -> None:
    """Of 20,000 answers the unsure escalate and a tenth of the others is seen; both recover the share of right ones."""
    dice, kept, made = random.Random(3), records(), watched("head", "remote")
    lessons, n_right, n = Lessons(Lasting(kept, "-/p")), 0, 20_000
    for i in range(n):
        sure = dice.random() < 0.8
        right = dice.random() < (0.97 if sure else 0.5)
        n_right += right
        if not sure or dice.random() < 0.1:
            lessons.add(lesson(f"t-{i:05}", A if right else B, 0.1 if sure else 1.0, floor=0.1))
    await lessons.close()
    taught = (await kept_of(kept, made)).taught
    rows, counts = pooled((), taught)
    weighted = sum(c * row["head"].correct for row, c in zip(rows, counts, strict=True)) / sum(counts)
    plain = [item.seen["head"].correct for item in taught if item.plain]
    assert sum(item.seen["head"].correct for item in taught) / len(taught) < n_right / n - 0.1, (
        "as they come they mislead"
    )
    assert weighted == pytest.approx(n_right / n, abs=0.015)
    assert sum(plain) / len(plain) == pytest.approx(n_right / n, abs=0.03)
    assert len(plain) == pytest.approx(n / 10, rel=0.1)
    assert sum(counts) == pytest.approx(effective(weights([item.propensity for item in taught])))


# --- what is read again -----------------------------------------------------------------------------------------


def lesson(task: str, output: dict[str, str] = A, chance: float = 1.0, floor: float = 1.0, **other: Any) -> Lesson:
    whole: dict[str, Any] = {
        "step": "s", "answers_hash": "now", "task": task, "input": GIVEN, "said": (said("head", A),),
        "teacher": "remote", "output": output, "propensity": chance, "floor": floor, "models": {"head": "h1"},
    }  # fmt: skip
    return Lesson(**(whole | other))


async def written(*lessons: Lesson) -> MemoryRecords:
    kept = records()
    writer = Lessons(Lasting(kept, "-/p"))
    for one in lessons:
        writer.add(one)
    await writer.close()
    return kept


async def test_lessons_of_the_step_as_it_was_are_not_read() -> None:
    """Another pack, ladder or input has another hash; another step another name."""
    kept = await written(lesson("t-1"), lesson("t-2", answers_hash="then"), lesson("t-3", step="other"))
    assert len((await kept_of(kept, watched("head", "remote"))).taught) == 1


async def test_lessons_of_other_weights_and_of_a_weaker_teacher_are_left_out_and_counted() -> None:
    """The models that answer now count, else those of the latest lesson; of two teachers the dearer."""
    kept = await written(
        lesson("t-1", models={"head": "h0"}), lesson("t-2", teacher="small"), lesson("t-3"), lesson("t-4")
    )
    made = watched("head", "small", "remote")
    found, models = await gathered(kept, "-/p", made)
    assert (len(found["s"].taught), found["s"].others, models) == (2, 2, {"head": "h1"})
    older = await kept_of(kept, made, {"head": "h0"})
    assert (len(older.taught), older.others) == (1, 3)


async def test_more_lessons_than_a_page_are_all_read() -> None:
    """And in the order of their tasks."""
    kept = await written(*(lesson(f"t-{i:04}", A if i % 3 else B) for i in range(2300)))
    taught = (await kept_of(kept, watched("head", "remote"))).taught
    assert [item.seen["head"].correct for item in taught] == [bool(i % 3) for i in range(2300)]


async def test_no_lessons_are_no_teacher() -> None:
    """Nothing was kept of a swarm that has not run."""
    assert await kept_of(records(), watched("head", "remote")) == Gathered()
