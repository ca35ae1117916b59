"""What the journal keeps of a run; a receipt is made of it."""

from __future__ import annotations

from typing import Any

import msgspec

from protocols.ids import AttemptId, RunId, TaskId
from protocols.money import Amount, Limit


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try at a step, as the journal keeps it and the receipt counts it.

    `place`: which of its task's attempts it was, from 0. `event`: what it brought about (msgpack), so that the task can
    be gone on with from here; empty where nothing came of it.
    """

    id: AttemptId
    task: TaskId
    step: str
    tier: str
    outcome: str  # accepted | recalled | escalated | degraded | failed | refused | unavailable | cancelled | looked
    host: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    ms: int = 0
    micro_usd: int = 0
    confidence: float | None = None
    reason: str = ""
    remote_tokens_in: int = 0  # what the remote model would have read and written for the same answer (estimate)
    remote_tokens_out: int = 0
    place: int = 0
    event: bytes = b""
    saved: Amount = Amount()  # what the answer had cost that was recalled


class Balance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An account at one commit: settled + held ≤ limit, per unit. `overrun`: what was used beyond what was held."""

    limit: Limit
    settled: Amount = Amount()
    held: Amount = Amount()
    overrun: Amount = Amount()


class RunRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run as it was started: the swarm, its plan, and what the receipt needs to compare with."""

    id: RunId
    swarm: str
    plan_hash: str
    started: float  # seconds since the epoch
    about: dict[str, Any] = {}
    finished: float | None = None
