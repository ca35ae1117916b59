"""The seam to the store: a ledger that cannot be overdrawn, and a journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from protocols.ids import AttemptId, RunId, TaskId
from protocols.money import Amount, Limit
from protocols.tasks import Result

AccountId = str  # "run:<id>" or "task:<id>"


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


@dataclass(frozen=True, slots=True)
class Balance:
    """An account at one commit: settled + held ≤ limit, per unit."""

    limit: Limit
    settled: Amount
    held: Amount


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a hold was refused. `passing` means that other holds stand in the way, which may be settled for less."""

    account: AccountId
    unit: str  # "usd" | "tokens"
    wanted: int
    left: int
    passing: bool


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as it was started: the swarm, its plan, and what the receipt needs to compare with."""

    id: RunId
    swarm: str
    plan_hash: str
    started: float  # seconds since the epoch
    about: dict[str, Any]
    finished: float | None = None


class Store(Protocol):
    """Every method raises `StoreError` when the store cannot be used; nothing paid may start then."""

    async def begin(self, run: RunRecord, limit: Limit) -> None: ...

    async def end(self, run: RunId, finished: float) -> None:
        """Close a run. Holds still open are settled in full: nobody can say any more what they bought."""
        ...

    async def accept(self, run: RunId, task: TaskId, limit: Limit) -> None:
        """Open a task's account."""
        ...

    async def hold(self, id: AttemptId, run: RunId, task: TaskId, amount: Amount) -> Refusal | None:
        """Reserve `amount` on the task's and the run's account in one transaction, or nothing at all."""
        ...

    async def settle(self, attempt: Attempt, run: RunId, used: Amount) -> None:
        """End a hold at what was used (at most what was held; more is recorded as overrun) and journal the attempt."""
        ...

    async def void(self, attempt: Attempt, run: RunId) -> None:
        """End a hold at nothing and journal the attempt."""
        ...

    async def finish(self, run: RunId, result: Result) -> None:
        """Journal a task's terminal state; a second one for the same task is refused with `StoreError`."""
        ...

    async def balance(self, account: AccountId) -> Balance: ...

    async def run(self, id: RunId) -> RunRecord | None: ...

    async def runs(self) -> list[RunRecord]: ...

    async def attempts(self, run: RunId) -> list[Attempt]: ...

    async def results(self, run: RunId) -> list[Result]: ...

    async def close(self) -> None: ...
