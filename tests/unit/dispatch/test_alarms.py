"""Alarms outlast a run: what one run has seen of a certificate, the next one goes on from."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import msgspec
import pytest
from watch_stage import A, B, records, said, watched, watching

from swarm.dispatch.alarms import Alarms
from swarm.dispatch.drift import Drift, Wealth
from swarm.dispatch.lasting import Lasting
from swarm.errors import StoreError
from swarm.plan.plan import Plan
from swarm.state.records import MemoryRecords, Record


def lasting(kept: MemoryRecords, calibration: str = "c-1", scope: str = "-/p") -> Lasting:
    return Lasting(kept, scope, calibration)


async def begun(kept: MemoryRecords, error: float = 0.05, **of: str) -> Alarms:
    alarms = Alarms({"s": error}, lasting(kept, **of))
    await alarms.begin()
    return alarms


def until_the_alarm(error: float = 0.05) -> int:
    """How many wrong answers in a row raise it."""
    drift, n = Drift(error), 0
    while not drift.alarm:
        drift.observe(True)
        n += 1
    return n


async def test_an_alarmed_step_is_alarmed_in_the_next_run() -> None:
    """And stays so whatever is seen then; a calibration with another digest starts afresh."""
    kept = records()
    alarms = await begun(kept)
    for _ in range(until_the_alarm()):
        await alarms.observe("s", wrong=True)
    assert alarms.raised == {"s"}
    following = await begun(kept)
    await following.observe("s", wrong=False)
    assert following.raised == {"s"}
    assert (await begun(kept, calibration="c-2")).raised == set()


async def test_what_is_too_little_for_an_alarm_in_one_run_adds_up_over_runs() -> None:
    """A breach is seen however short the runs are."""
    kept, needed = records(), until_the_alarm()
    for n in range(needed):
        alarms = await begun(kept)
        assert alarms.raised == set(), f"after {n} of {needed} answers"
        await alarms.observe("s", wrong=True)
    assert (await begun(kept)).raised == {"s"}


@pytest.mark.parametrize("seed", range(5))
async def test_many_short_runs_are_one_long_one(seed: int) -> None:
    """However the answers are cut into runs, the wealth is that of a single watch over all, so it stays fair."""
    dice, kept, whole = random.Random(seed), records(), Drift(0.05)
    for _ in range(20):
        alarms = await begun(kept)
        for _ in range(dice.randrange(6)):
            wrong = dice.random() < 0.05
            whole.observe(wrong)
            await alarms.observe("s", wrong)
    record = await kept.get("alarm", "-/p", "c-1/s")
    assert record is not None
    assert msgspec.msgpack.decode(record.body, type=dict[str, Wealth]) == {"0.05": whole.wealth}


async def test_an_alarm_belongs_to_one_swarm_of_one_tenant_and_to_one_promise() -> None:
    """Neither another scope nor another certified error is touched; the error that was broken stays so."""
    kept = records()
    alarms = await begun(kept)
    for _ in range(until_the_alarm()):
        await alarms.observe("s", wrong=True)
    assert (await begun(kept, scope="acme/p")).raised == set()
    other = await begun(kept, error=0.2)
    assert other.raised == set()
    await other.observe("s", wrong=False)
    assert (await begun(kept)).raised == {"s"}


async def test_runs_at_the_same_time_have_one_wealth() -> None:
    """Each goes on from what the others have seen meanwhile, and hears of their alarm."""
    kept = records()
    one, other = await begun(kept), await begun(kept)
    for _ in range(until_the_alarm() - 1):
        await one.observe("s", wrong=True)
    assert (one.raised, other.raised) == (set(), set())
    await other.observe("s", wrong=True)
    assert other.raised == {"s"}
    await one.observe("s", wrong=False)
    assert one.raised == {"s"}


class Failing(MemoryRecords):
    """Cannot be written for a while."""

    broken = True

    async def put(self, records: Sequence[Record], *, new: bool = False) -> None:
        if self.broken:
            raise StoreError("the disk is full")
        await super().put(records, new=new)


async def test_what_cannot_be_kept_counts_all_the_same_and_is_kept_later() -> None:
    """The alarm is raised though the store fails, and the next writing has everything."""
    kept = Failing(lambda: None)
    alarms, needed = await begun(kept), until_the_alarm(0.05)
    for _ in range(needed - 1):
        await alarms.observe("s", wrong=True)
    kept.broken = False
    assert (await begun(kept)).raised == set()
    await alarms.observe("s", wrong=True)
    assert alarms.raised == {"s"}
    assert (await begun(kept)).raised == {"s"}


async def test_without_a_readable_store_no_run_begins() -> None:
    """Nobody would know what may be kept; a record that is no wealth names its step."""
    kept = records()
    await kept.put([Record(kind="alarm", scope="-/p", key="c-1/s", body=b"\xc1")])
    with pytest.raises(StoreError, match=r"alarm 'c-1/s' of '-/p' cannot be read"):
        await begun(kept)


# --- the watch --------------------------------------------------------------------------------------------------


async def looked(made: Plan, kept: MemoryRecords | None, dear: dict[str, str], n: int) -> bool:
    """Whether the step is alarmed after `n` answers of a run were looked behind, as they come."""
    async with watching(made, {"s": dear}, kept) as (watch, _):
        for i in range(n):
            watch.accepted(f"t-{i}", made.step("s"), {"text": "hi"}, said("head", A))
            await watch.close()
        return "s" in watch.alarmed


@pytest.mark.parametrize(("dear", "alarmed"), [(A, False), (B, True)])
async def test_a_watch_goes_on_from_the_runs_before(dear: dict[str, str], alarmed: bool) -> None:
    """Half of what raises an alarm in one run and half in the next; where the dearest tier agrees there is none."""
    kept, made = records(), watched("head", "remote")
    half = until_the_alarm() // 2 + 1
    assert not await looked(made, kept, dear, half)
    assert await looked(made, kept, dear, half) is alarmed
    assert await looked(dataclasses.replace(made, tenant="acme"), kept, dear, 0) is False


async def test_without_records_a_watch_knows_its_own_run_alone() -> None:
    """As where nothing is to be kept."""
    made = watched("head", "remote")
    half = until_the_alarm() // 2 + 1
    assert [await looked(made, None, B, half) for _ in range(2)] == [False, False]
    assert await looked(made, None, B, 2 * half)
