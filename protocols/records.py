"""What the journal keeps of a run; a receipt is made of it."""

from __future__ import annotations

from typing import Any

import msgspec

from protocols.ids import AttemptId, RunId, TaskId
from protocols.money import Amount, Limit


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try at a step, as the journal keeps it and the receipt counts it."""

    id: AttemptId
    task: TaskId
    step: str
    tier: str
    outcome: str  # accepted | escalated | degraded | failed | unavailable | cancelled
    host: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    ms: int = 0
    micro_usd: int = 0
    confidence: float | None = None
    reason: str = ""
    remote_tokens_in: int = 0  # what the remote model would have read and written for the same answer (estimate)
    remote_tokens_out: int = 0


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
