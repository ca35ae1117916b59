"""A store that is another one: what a store of its own kind begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from protocols.ids import RunId, TaskId
from protocols.money import Amount, Limit
from protocols.tasks import Result
from swarm.state.base import AccountId, Attempt, Balance, Draw, Ended, OwnerId, Refusal, RunRecord, Store


class Through:
    """All that has nothing to do with the holds of attempts; `store` is closed with it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.records, self.caches = store.records, store.caches

    async def tenant(self, id: str, limit: Limit) -> None:
        await self._store.tenant(id, limit)

    async def begin(self, run: RunRecord, limit: Limit, tenant: str | None = None) -> None:
        await self._store.begin(run, limit, tenant)

    async def end(self, run: RunId, finished: float) -> None:
        await self._store.end(run, finished)

    async def reopen(self, run: RunId) -> None:
        await self._store.reopen(run)

    async def accept(
        self, run: RunId, task: TaskId, limit: Limit, steps: Mapping[str, Limit] | None = None, *, body: bytes = b""
    ) -> None:
        await self._store.accept(run, task, limit, steps, body=body)

    async def finish(self, run: RunId, result: Result) -> None:
        await self._store.finish(run, result)

    async def recover(self, *, run: RunId | None = None, owner: OwnerId | None = None) -> Ended:
        return await self._store.recover(run=run, owner=owner)

    async def lease(self, id: str, run: RunId, amount: Amount) -> Refusal | None:
        return await self._store.lease(id, run, amount)

    async def draw(self, lease: str, run: RunId, draws: Sequence[Draw]) -> None:
        await self._store.draw(lease, run, draws)

    async def give_back(self, lease: str, charged: Amount) -> None:
        await self._store.give_back(lease, charged)

    async def balance(self, account: AccountId) -> Balance:
        return await self._store.balance(account)

    async def check(self) -> None:
        await self._store.check()

    async def problems(self) -> list[str]:
        return await self._store.problems()

    async def run(self, id: RunId) -> RunRecord | None:
        return await self._store.run(id)

    async def runs(self) -> list[RunRecord]:
        return await self._store.runs()

    async def tasks(self, run: RunId) -> list[tuple[TaskId, bytes]]:
        return await self._store.tasks(run)

    async def attempts(self, run: RunId) -> list[Attempt]:
        return await self._store.attempts(run)

    async def results(self, run: RunId) -> list[Result]:
        return await self._store.results(run)

    async def close(self) -> None:
        await self._store.close()
