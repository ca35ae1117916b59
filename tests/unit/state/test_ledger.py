"""Any mix of what a store can be asked for leaves the books as arithmetic says, and no account overdrawn.

`SWARM_LEDGER_STEPS` says how many steps are tried on each engine.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ledger_books import RUN, Books, attempt, record
from ledger_model import Accept, Draw, End, GiveBack, Hold, Lease, Model, Operation, Sent

from protocols.money import Amount, Limit
from swarm.state import base
from swarm.state.base import Store
from swarm.state.memory import MemoryStore
from swarm.state.sqlite import SqliteStore

STEPS = int(os.environ.get("SWARM_LEDGER_STEPS", "200"))
TASKS = ("t-1", "t-2", "t-3")
IDS = tuple(f"a-{i}" for i in range(8))

amounts = st.builds(Amount, micro_usd=st.integers(0, 60), tokens=st.integers(0, 60), ms=st.sampled_from([0, 0, 30]))
limits = st.builds(
    Limit, micro_usd=st.none() | st.integers(0, 150), tokens=st.none() | st.integers(0, 150), ms=st.just(None)
)
holds = st.builds(
    Hold, st.sampled_from(IDS), st.sampled_from(TASKS), amounts, st.booleans(), st.booleans(),
    st.none() | st.sampled_from(["k-1", "k-2", "k-3"]),
)  # fmt: skip
operations: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Accept, st.sampled_from(TASKS), limits, limits),
    holds,
    holds,
    holds,
    st.builds(Sent, st.sampled_from(IDS)),
    st.builds(End, st.sampled_from(IDS), st.none() | amounts),
    st.builds(End, st.sampled_from(IDS), st.none() | amounts),
    st.builds(Lease, amounts),
    st.builds(Draw, st.sampled_from(IDS), st.sampled_from(TASKS), amounts, amounts),
    st.just(GiveBack()),
)


class Ledger(RuleBasedStateMachine):
    """The same operations on the store, many at once, and in a model of a few lines, one after the other."""

    def open(self) -> Store:
        raise NotImplementedError

    @initialize(run=limits, tenant=limits)
    def begin(self, run: Limit, tenant: Limit) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "store.db"
        self.runner = asyncio.Runner()
        self.runner.run(self.begun(run, tenant))
        self.model = Model(RUN, run, tenant)

    async def begun(self, run: Limit, tenant: Limit) -> None:
        self.store = self.open()
        await self.store.tenant("acme", tenant)
        await self.store.begin(record(), run, "acme")

    @rule(burst=st.lists(operations, min_size=1, max_size=10))
    def at_once(self, burst: list[Operation]) -> None:
        """Operations that are waiting together are committed together; each still gets its own answer."""
        self.model.begin_burst()
        got = self.runner.run(self.run_all(burst))
        for operation, answer in zip(burst, got, strict=True):
            expected = self.model.expect(operation)
            if isinstance(expected, type):
                assert isinstance(answer, expected), (operation, answer)
            else:
                assert answer == expected, operation

    async def run_all(self, burst: list[Operation]) -> list[Any]:
        return await asyncio.gather(*(self.to_store(operation) for operation in burst), return_exceptions=True)

    def to_store(self, operation: Operation) -> Coroutine[Any, Any, Any]:
        store = self.store
        match operation:
            case Accept(task, limit, step):
                return store.accept(RUN, task, limit, {"s": step})
            case Hold(id, task, amount, in_step, sent, key):
                return store.hold(id, RUN, task, amount, step="s" if in_step else None, key=key, sent=sent)
            case Sent(id):
                return store.sent(id)
            case End(id, None):
                return store.void(attempt(id), RUN)
            case End(id, used):
                assert used is not None
                return store.settle(attempt(id), RUN, used)
            case Lease(amount):
                return store.lease(self.model.lease_id, RUN, amount)
            case Draw(id, task, held, used):
                draw = base.Draw(attempt(id, task), f"task:{task}", held, used, void=False)
                return store.draw(self.model.lease_id, RUN, [draw])
            case GiveBack():
                return store.give_back(self.model.lease_id, Amount())

    @rule()
    def crash(self) -> None:
        """What nobody can end any more is ended: the unsent at nothing, the rest in full."""
        assert self.runner.run(self.store.recover(run=RUN)) == self.model.recovered()

    @invariant()
    def the_books_agree(self) -> None:
        if hasattr(self, "model"):
            self.runner.run(self.store.check())
            for name, account in self.model.accounts.items():
                account.check(name)
                balance = self.runner.run(self.store.balance(name))
                assert (balance.limit, balance.settled, balance.held) == (account.limit, account.settled, account.held)
                assert balance.overrun == account.over

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        self.runner.run(self.store.end(RUN, 2.0))
        self.model.recovered()
        self.the_books_agree()
        assert all(account.held == Amount() for account in self.model.accounts.values())
        self.runner.run(self.store.close())
        self.runner.close()
        self.folder.cleanup()


class InMemory(Ledger):
    def open(self) -> Store:
        return MemoryStore()


class InSqlite(Ledger):
    def open(self) -> Store:
        return SqliteStore(self.path)

    @rule()
    def reopen(self) -> None:
        """A store that is closed and opened again says the same."""
        self.runner.run(self.store.close())
        self.store = self.open()

    @invariant()
    def others_see_the_same(self) -> None:
        """What is on disk after the commit, seen by another connection."""
        if hasattr(self, "model"):
            books = Books(self.path)
            books.check()
            seen = {
                name: (account.limit, account.settled, account.held) for name, account in self.model.accounts.items()
            }
            assert books.accounts() == seen
            books.close()


TestLedgerInMemory = InMemory.TestCase
TestLedgerInMemory.settings = settings(max_examples=max(1, STEPS // 20), stateful_step_count=20, deadline=None)
TestLedgerInSqlite = InSqlite.TestCase
TestLedgerInSqlite.settings = settings(max_examples=max(1, STEPS // 20), stateful_step_count=20, deadline=None)
