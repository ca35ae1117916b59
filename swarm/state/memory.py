"""The store in plain objects: for runs that keep nothing, and as fast as the ledger's rules are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from protocols.ids import AttemptId, RunId, TaskId, new_id
from protocols.money import Amount, Limit
from protocols.tasks import Result
from swarm.errors import StoreError
from swarm.state.account import Entry, Units
from swarm.state.audit import audit, demand_none, summed
from swarm.state.base import AccountId, Attempt, Balance, Draw, Ended, OwnerId, Refusal, RunRecord, unknown_run
from swarm.state.ledger import Ledger
from swarm.state.records import MemoryRecords, Records


class MemoryStore:
    """For one event loop. Nothing of it outlives the program, so no other program can end its holds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time) -> None:
        self.owner: OwnerId = new_id("o")
        self._ledger = Ledger(self.owner, clock)
        self._runs: dict[RunId, RunRecord] = {}
        self._attempts: dict[RunId, dict[AttemptId, Attempt]] = {}
        self._results: dict[TaskId, tuple[RunId, Result]] = {}
        self._tasks: dict[RunId, list[tuple[TaskId, bytes]]] = {}
        self.records: Records = MemoryRecords(self._books, now)
        self.caches: Records = MemoryRecords(self._books, now)
        self._closed = False

    async def tenant(self, id: str, limit: Limit) -> None:
        self._books().tenant(id, limit)

    async def begin(self, run: RunRecord, limit: Limit, tenant: str | None = None) -> None:
        self._books().open_run(run.id, limit, tenant)
        self._runs[run.id] = run

    async def end(self, run: RunId, finished: float) -> None:
        self._books().recover(run=run)
        if run in self._runs:
            self._runs[run] = msgspec.structs.replace(self._runs[run], finished=finished)

    async def reopen(self, run: RunId) -> None:
        books = self._books()
        if run not in self._runs:
            raise unknown_run(run)
        books.recover(run=run)
        cut_short = [task for task, (of, result) in self._results.items() if of == run and result.status == "cancelled"]
        for task in cut_short:
            del self._results[task]
        self._runs[run] = msgspec.structs.replace(self._runs[run], finished=None)

    async def accept(
        self, run: RunId, task: TaskId, limit: Limit, steps: Mapping[str, Limit] | None = None, *, body: bytes = b""
    ) -> None:
        self._books().open_task(run, task, limit, steps or {})
        if body:
            self._tasks.setdefault(run, []).append((task, body))

    async def hold(
        self, id: AttemptId, run: RunId, task: TaskId, amount: Amount, *, step: str | None = None,
        key: str | None = None, sent: bool = True, expires_s: float | None = None,
    ) -> Refusal | None:  # fmt: skip
        books = self._books()
        return books.hold(id, books.leaf(run, task, step), amount, key=key, sent=sent, expires_s=expires_s)

    async def sent(self, id: AttemptId) -> None:
        self._books().sent(id)

    async def settle(self, attempt: Attempt, run: RunId, used: Amount, *, key: str | None = None) -> None:
        self._books().end(attempt.id, used, "settled", key, attempt)
        self._attempts.setdefault(run, {}).setdefault(attempt.id, attempt)

    async def void(self, attempt: Attempt, run: RunId, *, key: str | None = None) -> None:
        self._books().end(attempt.id, Amount(), "void", key, attempt)
        self._attempts.setdefault(run, {}).setdefault(attempt.id, attempt)

    async def recover(self, *, run: RunId | None = None, owner: OwnerId | None = None) -> Ended:
        return self._books().recover(run, owner)

    async def lease(self, id: str, run: RunId, amount: Amount) -> Refusal | None:
        return self._books().lease(id, run, amount)

    async def draw(self, lease: str, run: RunId, draws: Sequence[Draw]) -> None:
        for attempt in self._books().draw(lease, run, draws):
            self._attempts.setdefault(run, {}).setdefault(attempt.id, attempt)

    async def give_back(self, lease: str, charged: Amount) -> None:
        self._books().end(lease, charged, "settled")

    async def finish(self, run: RunId, result: Result) -> None:
        self._books()
        if result.task in self._results:
            raise StoreError(f"the ledger refused: task {result.task!r} has ended already")
        self._results[result.task] = (run, result)

    async def balance(self, account: AccountId) -> Balance:
        return self._books().account(account).balance()

    async def check(self) -> None:
        demand_none(await self.problems())

    async def problems(self) -> list[str]:
        books = self._books()
        return audit(books.accounts(), summed(_legs(books.entries)), books.open_holds())

    async def run(self, id: RunId) -> RunRecord | None:
        self._books()
        return self._runs.get(id)

    async def runs(self) -> list[RunRecord]:
        self._books()
        return sorted(self._runs.values(), key=lambda run: run.started)

    async def tasks(self, run: RunId) -> list[tuple[TaskId, bytes]]:
        self._books()
        return list(self._tasks.get(run, ()))

    async def attempts(self, run: RunId) -> list[Attempt]:
        self._books()
        return [attempt for _, attempt in sorted(self._attempts.get(run, {}).items())]

    async def results(self, run: RunId) -> list[Result]:
        self._books()
        return [result for _, (of, result) in sorted(self._results.items()) if of == run]

    async def close(self) -> None:
        self._closed = True

    def _books(self) -> Ledger:
        if self._closed:
            raise StoreError("the store was closed")
        if self._ledger.due:
            self._ledger.expire()
        return self._ledger


def _legs(entries: Iterable[Entry]) -> Iterable[tuple[AccountId, str, Units]]:
    for _, _, _, account, debit, credit, money, tokens, ms in entries:
        yield account, debit, (-money, -tokens, -ms)
        yield account, credit, (money, tokens, ms)
