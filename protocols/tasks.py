"""What a caller asks for and what he gets back."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from protocols.ids import RunId, TaskId
from protocols.money import Amount

Status = Literal["done", "degraded", "person", "budget_exhausted", "deadline", "failed", "cancelled"]
"""The terminal states. `done`: every step accepted. `degraded`: an answer below its threshold was kept because the
budget allowed no better. `person`: handed to a person with everything known. The others ended without an answer."""


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item for a swarm. `left_ms` is the time left to answer it, not a moment on any clock; `left_of` its limit.

    `position`: its place among the items given together, from 0.
    """

    id: TaskId
    run: RunId
    input: dict[str, Any]
    left_ms: int | None = None
    left_of: Literal["task", "run"] = "task"
    position: int | None = None


class StepResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one step ended. `tier` is the one whose answer was kept."""

    step: str
    status: Literal["accepted", "degraded", "person", "failed", "skipped"]
    output: dict[str, Any] | None = None
    tier: str | None = None
    confidence: float | None = None
    reason: str | None = None


class Weighed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that could have been done, with what was expected of it: P(right), millionths of a dollar, time.

    `net`: its worth less its price, in US dollars. `path`: the tiers that would be asked, one after the other.
    """

    action: str
    path: tuple[str, ...] = ()
    quality: float = 0.0
    micro_usd: float = 0.0
    ms: float = 0.0
    net: float = 0.0


class Why(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One decision of the dispatcher, with what it was made from.

    `rule`: where the threshold comes from. `weighed`: what could be done instead, the best first, where tiers are
    weighed against their price; `shadow_price`: what a dollar was worth then beyond itself. `would_change`: what would
    have changed it.
    """

    step: str
    decision: str
    tier: str | None = None
    confidence: float | None = None
    accept_at: float | None = None
    signals: dict[str, Any] = {}
    hold: Amount | None = None
    budget_left: dict[str, int | None] = {}
    reason: str = ""
    rule: str = ""
    weighed: tuple[Weighed, ...] = ()
    shadow_price: float | None = None
    would_change: str = ""


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a task; exactly one exists for every accepted task."""

    task: TaskId
    status: Status
    output: dict[str, Any] = {}
    steps: dict[str, StepResult] = {}
    confidence: float | None = None
    cost: Amount = Amount()
    why: tuple[Why, ...] = ()
    reason: str | None = None
    ms: int = 0
    position: int | None = None  # place among the items given to `map`, from 0
