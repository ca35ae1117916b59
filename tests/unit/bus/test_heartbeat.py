"""Silence is noticed, and only where it is the host that is silent."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from swarm.bus.base import HostLost
from swarm.bus.heartbeat import heard


async def test_a_reply_is_handed_on() -> None:
    """Also when it takes more than one beat."""
    assert await heard("host-0", asyncio.sleep(0.02, "here"), beats=1000, beat_s=0.005) == "here"


async def test_what_the_call_raises_is_raised() -> None:
    """A host that says no is not silent."""

    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await heard("host-0", fails())


async def test_a_silent_host_is_lost() -> None:
    """It is named, with how long nothing came."""
    with pytest.raises(HostLost, match=r"host 'host-0' has not been heard for 0\.02 s"):
        await heard("host-0", asyncio.Event().wait(), beats=2, beat_s=0.01)


async def test_who_was_stopped_himself_blames_nobody() -> None:
    """A reply that came while this process stood still is taken, however long that was."""
    loop = asyncio.get_running_loop()
    reply: asyncio.Future[str] = loop.create_future()
    waiting = asyncio.create_task(heard("host-0", reply, beats=2, beat_s=0.01))
    await asyncio.sleep(0)
    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(reply.set_result, "here"))
    thread.start()
    time.sleep(0.1)  # noqa: ASYNC251 (the loop stands still)
    thread.join()
    assert await waiting == "here"
