"""The seam to the store: a ledger that cannot be overdrawn, and a journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from protocols.ids import AttemptId, RunId, TaskId
from protocols.money import Amount, Limit
from protocols.records import Attempt, Balance, RunRecord
from protocols.tasks import Result
from swarm.errors import StoreError
from swarm.state.records import Records

__all__ = [
    "AccountId",
    "Attempt",
    "Balance",
    "Draw",
    "Ended",
    "Refusal",
    "Repeated",
    "RunRecord",
    "Store",
    "unknown_run",
]

AccountId = str  # "tenant:<id>", "run:<id>", "task:<id>" or "step:<task>/<step>", each below the one before
OwnerId = str  # "o-…": one life of one program


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a hold was refused. `passing` means that other holds stand in the way, which may be settled for less."""

    account: AccountId
    unit: str  # "usd" | "tokens" | "ms"
    wanted: int
    left: int
    passing: bool


@dataclass(frozen=True, slots=True)
class Repeated(Refusal):
    """The hold of this key was granted before and has ended: nothing is held again, and nothing may be sent again."""

    state: str  # settled | void
    charged: Amount


@dataclass(frozen=True, slots=True)
class Draw:
    """An attempt that was paid from a lease: what was held for it there, and what of that was charged."""

    attempt: Attempt
    account: AccountId  # the task's or the step's
    held: Amount
    used: Amount
    void: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """Holds that were ended for somebody who cannot end them any more."""

    void: int = 0  # were never sent
    settled: int = 0  # may have been sent: charged in full


class Store(Protocol):
    """Every method raises `StoreError` when the store cannot be used; nothing paid may start then."""

    @property
    def records(self) -> Records:
        """As durable as the ledger."""
        ...

    @property
    def caches(self) -> Records:
        """What may be lost: a crash may cost the last of them, never their consistency."""
        ...

    async def tenant(self, id: str, limit: Limit) -> None:
        """Open a tenant's account, or give the one that exists a new limit; it lives across runs."""
        ...

    async def begin(self, run: RunRecord, limit: Limit, tenant: str | None = None) -> None: ...

    async def end(self, run: RunId, finished: float) -> None:
        """Close a run, its open holds ended as `recover` does."""
        ...

    async def reopen(self, run: RunId) -> None:
        """Go on with a run that was ended or broken off: what its dead owner left open is ended as `recover` does.

        Tasks that were cancelled have no result any more, as they may be gone on with.

        Only for one who knows that nobody else works on it. Raises `StoreError` for a run that is not there.
        """
        ...

    async def accept(
        self,
        run: RunId,
        task: TaskId,
        limit: Limit,
        steps: Mapping[str, Limit] | None = None,
        *,
        body: bytes = b"",
    ) -> None:
        """Open a task's account, and one for each step that has a limit of its own; a `body` is kept for `tasks`."""
        ...

    async def hold(
        self,
        id: AttemptId,
        run: RunId,
        task: TaskId,
        amount: Amount,
        *,
        step: str | None = None,
        key: str | None = None,
        sent: bool = True,
        expires_s: float | None = None,
    ) -> Refusal | None:
        """Reserve `amount` on all accounts above the attempt in one transaction, or nothing at all.

        `step`: one that `accept` gave a limit. With `sent=False` the caller promises to say `sent` before the request
        may leave; such a hold costs nothing when its holder dies, and ends by itself after `expires_s`. The same `key`
        with the same content is the same hold: nothing is booked twice, and `Repeated` says when it has ended. Raises
        `KeyConflict` for a key that stood for something else.
        """
        ...

    async def sent(self, id: AttemptId) -> None:
        """The request may leave after this. Raises `StoreError` where the hold has ended: it must not leave then."""
        ...

    async def settle(self, attempt: Attempt, run: RunId, used: Amount, *, key: str | None = None) -> None:
        """End a hold at what was used (at most what was held; more is recorded as overrun) and journal the attempt.

        An attempt ends once: a second `settle` or `void` changes neither the accounts nor the journal. With a `key`, a
        second one that says something else raises `KeyConflict`.
        """
        ...

    async def void(self, attempt: Attempt, run: RunId, *, key: str | None = None) -> None:
        """End a hold at nothing and journal the attempt."""
        ...

    async def recover(self, *, run: RunId | None = None, owner: OwnerId | None = None) -> Ended:
        """End all open holds of a run or of a program that is gone: unsent at nothing, others and leases in full."""
        ...

    async def lease(self, id: str, run: RunId, amount: Amount) -> Refusal | None:
        """Take a slice of the run's account, or `amount` more for a lease that exists. Counts as held, and as sent."""
        ...

    async def draw(self, lease: str, run: RunId, draws: Sequence[Draw]) -> None:
        """Charge and journal attempts that were paid from a lease, all or none of them. Done twice it is done once."""
        ...

    async def give_back(self, lease: str, charged: Amount) -> None:
        """End a lease; what was not drawn is free again, but for what is `charged` now."""
        ...

    async def finish(self, run: RunId, result: Result) -> None:
        """Journal a task's terminal state; a second one for the same task is refused with `StoreError`."""
        ...

    async def balance(self, account: AccountId) -> Balance: ...

    async def check(self) -> None:
        """Replay all entries and compare. Raises `StoreError` with what differs from the accounts."""
        ...

    async def problems(self) -> list[str]:
        """Everything that is wrong, a line each: the books as `check` sees them, checksums, the file itself."""
        ...

    async def run(self, id: RunId) -> RunRecord | None: ...

    async def runs(self) -> list[RunRecord]: ...

    async def tasks(self, run: RunId) -> list[tuple[TaskId, bytes]]:
        """The bodies that `accept` was given, in the order in which the tasks were accepted."""
        ...

    async def attempts(self, run: RunId) -> list[Attempt]: ...

    async def results(self, run: RunId) -> list[Result]: ...

    async def close(self) -> None: ...


def unknown_run(id: RunId) -> StoreError:
    return StoreError(f"run {id!r} is not in the store; `swarm runs` lists those that are")
