"""One computes, the others wait, and nobody is lost with the one who computes."""

from __future__ import annotations

import asyncio

import pytest

from swarm.dispatch.cache.flight import Failed, Flights, HandedOver


async def test_what_one_finds_all_get() -> None:
    """Also those who come just before it is found; who comes later leads again."""
    flights: Flights[str] = Flights()
    assert flights.lead("k")
    waiting = [asyncio.create_task(flights.follow("k")) for _ in range(3)]
    assert not flights.lead("k")
    await asyncio.sleep(0)
    flights.land("k", "found")
    assert await asyncio.gather(*waiting) == ["found"] * 3
    assert flights.lead("k")


async def test_a_failure_or_a_leaving_is_told_as_what_it_is() -> None:
    """The one lets everybody go on alone, the other calls for one to take over."""
    flights: Flights[str] = Flights()
    for end, error in ((flights.fail, Failed), (flights.leave, HandedOver)):
        flights.lead("k")
        waiting = [asyncio.create_task(flights.follow("k")) for _ in range(2)]
        await asyncio.sleep(0)
        end("k")
        for told in waiting:
            with pytest.raises(error):
                await told
    assert len(flights) == 0


async def test_one_who_waits_can_go_away() -> None:
    """The others, and the one who computes, are not disturbed."""
    flights: Flights[str] = Flights()
    flights.lead("k")
    gone, stays = (asyncio.create_task(flights.follow("k")) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    flights.land("k", "found")
    assert await stays == "found"
    with pytest.raises(asyncio.CancelledError):
        await gone
