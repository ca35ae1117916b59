"""Calibrating asks everybody about labelled items, in the order and in every way that a run might."""

from __future__ import annotations

import dataclasses

import pytest
from watch_stage import CERTIFIED, A, B, opened, watched

from protocols.answers import Signals
from protocols.money import Limit
from swarm.errors import CalibrationError
from swarm.plan.plan import Plan
from swarm.runtime.labelling import Item, labelled
from swarm.testing import Fails, Says

ITEM = Item({"text": "hi"}, {"s": A})
ANSWERS = {"s/head": Says(A, 0.6), "s/small": Says(B, 0.7), "s/remote": Says(A, 0.9)}


def of_samples(made: Plan, samples: int) -> Plan:
    return dataclasses.replace(made, steps=(dataclasses.replace(made.steps[0], samples=samples),))


async def test_every_local_tier_is_asked_and_told_what_was_said_before() -> None:
    """Right is what its label says; remote tiers are asked only where they may be paid."""
    for paid, asked in ((False, ["head", "small"]), (True, ["head", "small", "remote"])):
        async with opened(watched("head", "small", "remote"), ANSWERS, CERTIFIED) as (setting, script):
            found = (await labelled(setting, [ITEM], lambda _: None, paid=paid))["s"]
            assert [ask.tier for ask in script.asks] == asked
            assert [e.tier for e in script.asks[-1].earlier] == asked[:-1]
            (row,) = found.rows
            assert {tier: seen.correct for tier, seen in row.items()} == {t: t != "small" for t in asked}


async def test_a_tier_that_may_give_several_candidates_is_asked_in_both_ways() -> None:
    """They are different things to learn about: the answer chosen from four is held, and kept, apart from the first."""
    made = of_samples(watched("small", "remote"), 4)
    async with opened(made, ANSWERS, CERTIFIED) as (setting, script):
        (row,) = (await labelled(setting, [ITEM], lambda _: None))["s"].rows
        assert [(ask.samples, ask.max_tokens) for ask in script.asks] == [(1, 100), (4, 400)]
        assert list(row) == ["small", "small*"]


async def test_a_tier_without_an_answer_is_left_out_of_the_row() -> None:
    """And one whose answer did not pass its checks is wrong, whatever it said."""
    answers = {"s/head": Fails("declined"), "s/small": Says(A, signals=Signals(checks_failed=("in_message:x",)))}
    async with opened(watched("head", "small"), answers, CERTIFIED) as (setting, _):
        (row,) = (await labelled(setting, [ITEM], lambda _: None))["s"].rows
        assert {tier: seen.correct for tier, seen in row.items()} == {"small": False}


async def test_items_that_say_nothing_about_a_step_are_counted() -> None:
    """Without a label, or without the input that the step reads."""
    items = [Item({"text": "hi"}, {}), Item({}, {"s": A}), ITEM]
    async with opened(watched("head"), ANSWERS, CERTIFIED) as (setting, script):
        found = (await labelled(setting, items, lambda _: None))["s"]
        assert (len(found.rows), found.skipped, len(script.asks)) == (1, 2, 1)


async def test_a_budget_that_does_not_suffice_stops_it() -> None:
    """With what it was short of, and the remedy."""
    made = dataclasses.replace(watched("small"), run_limit=Limit(tokens=150))
    async with opened(made, {"s": Says(A, 0.6, tokens=100)}, CERTIFIED) as (setting, _):
        with pytest.raises(CalibrationError, match=r"raise budget\.run\.tokens, or give fewer items"):
            await labelled(setting, [ITEM, ITEM], lambda _: None)
