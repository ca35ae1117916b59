"""The seam to the store: a ledger that cannot be overdrawn, and a journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from protocols.ids import AttemptId, RunId, TaskId
from protocols.money import Amount, Limit
from protocols.records import Attempt, Balance, RunRecord
from protocols.tasks import Result

__all__ = ["AccountId", "Attempt", "Balance", "Refusal", "RunRecord", "Store"]

AccountId = str  # "run:<id>" or "task:<id>"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a hold was refused. `passing` means that other holds stand in the way, which may be settled for less."""

    account: AccountId
    unit: str  # "usd" | "tokens"
    wanted: int
    left: int
    passing: bool


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
        """End a hold at what was used (at most what was held; more is recorded as overrun) and journal the attempt.

        An attempt ends once: a second `settle` or `void` changes neither the accounts nor the journal.
        """
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
