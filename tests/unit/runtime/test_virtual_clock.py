"""A clock that a test holds."""

from __future__ import annotations

import asyncio

from swarm.testing import VirtualClock


def test_it_stands_still_until_it_is_told() -> None:
    """Time is what was advanced, and nothing else."""
    clock = VirtualClock(100.0)
    assert (clock(), clock()) == (100.0, 100.0)
    clock.advance(2.5)
    assert clock() == 102.5


async def test_sleepers_wake_when_their_time_has_come() -> None:
    """Those whose time has not come sleep on; no time at all is no sleep."""
    clock = VirtualClock()
    await clock.sleep(0)
    short, long = asyncio.create_task(clock.sleep(10)), asyncio.create_task(clock.sleep(20))
    await asyncio.sleep(0)
    clock.advance(9.5)
    await asyncio.sleep(0)
    assert (short.done(), long.done(), clock.sleepers) == (False, False, 2)
    clock.advance(0.5)
    await short
    assert (long.done(), clock.sleepers) == (False, 1)
    clock.advance(10)
    await long


async def test_it_may_be_advanced_from_another_thread() -> None:
    """A swarm sleeps on its own event loop, its test advances the clock on another."""
    clock = VirtualClock()
    sleeping = asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0)
    await asyncio.to_thread(clock.advance, 1)
    await asyncio.wait_for(sleeping, 30)
