"""Whether a host still speaks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from protocols.ids import HostId
from swarm.bus.base import HostLost

HEARTBEAT_S = 4  # seconds of silence after which a host is given up; loading models is no silence, as nobody calls then

T = TypeVar("T")


async def heard(host: HostId, reply: Awaitable[T], beats: int = HEARTBEAT_S, beat_s: float = 1.0) -> T:
    """The reply of a call. Raises `HostLost` when nothing comes for `beats` times `beat_s` seconds.

    Silence is counted in beats that this process lived through: while it was stopped itself, it could hear nobody.
    """
    waiting = asyncio.ensure_future(_plain(reply))
    try:
        for _ in range(beats):
            await asyncio.wait({waiting}, timeout=beat_s)
            if waiting.done():
                return waiting.result()
    finally:
        waiting.cancel()
    raise HostLost(f"host {host!r} has not been heard for {beats * beat_s:g} s")


async def _plain(reply: Awaitable[T]) -> T:
    return await reply
