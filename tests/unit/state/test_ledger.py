"""Any mix of accepting, holding, settling and voiding leaves the books as arithmetic says, and no account overdrawn."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ledger_books import RUN, Books, attempt, record

from protocols.money import Amount, Limit
from swarm.errors import StoreError
from swarm.state.base import Refusal
from swarm.state.sqlite import SqliteStore

TASKS = ("t-1", "t-2", "t-3")
IDS = tuple(f"a-{i}" for i in range(8))

amounts = st.builds(Amount, micro_usd=st.integers(0, 60), tokens=st.integers(0, 60))
limits = st.builds(Limit, micro_usd=st.none() | st.integers(0, 150), tokens=st.none() | st.integers(0, 150))


@dataclass
class Account:
    limit: Limit
    settled: Amount = field(default_factory=Amount)
    held: Amount = field(default_factory=Amount)

    def refuses(self, name: str, wanted: Amount) -> Refusal | None:
        for unit, limit, settled, held, amount in (
            ("usd", self.limit.micro_usd, self.settled.micro_usd, self.held.micro_usd, wanted.micro_usd),
            ("tokens", self.limit.tokens, self.settled.tokens, self.held.tokens, wanted.tokens),
        ):
            if limit is not None and amount > limit - settled - held:
                return Refusal(name, unit, amount, limit - settled - held, passing=amount <= limit - settled)
        return None


@dataclass(frozen=True)
class Accept:
    task: str
    limit: Limit


@dataclass(frozen=True)
class Hold:
    id: str
    task: str
    amount: Amount


@dataclass(frozen=True)
class End:
    """Settle, or void when `used` is None."""

    id: str
    used: Amount | None


operations = st.one_of(
    st.builds(Accept, st.sampled_from(TASKS), limits),
    st.builds(Hold, st.sampled_from(IDS), st.sampled_from(TASKS), amounts),
    st.builds(Hold, st.sampled_from(IDS), st.sampled_from(TASKS), amounts),
    st.builds(End, st.sampled_from(IDS), st.none() | amounts),
)


class Ledger(RuleBasedStateMachine):
    """The same operations on the store, many at once, and in a model of a few lines, one after the other."""

    @initialize(limit=limits)
    def begin(self, limit: Limit) -> None:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "store.db"
        self.runner = asyncio.Runner()
        self.store = self.runner.run(SqliteStore.open(path))
        self.runner.run(self.store.begin(record(), limit))
        self.books = Books(path)
        self.accounts = {f"run:{RUN}": Account(limit)}
        self.open: dict[str, tuple[str, Amount]] = {}
        self.over: dict[str, tuple[int, int]] = {}

    @rule(burst=st.lists(operations, min_size=1, max_size=10))
    def at_once(self, burst: list[Accept | Hold | End]) -> None:
        """Operations that are waiting together are committed together; each still gets its own answer."""
        got = self.runner.run(self.run_all(burst))
        for operation, answer in zip(burst, got, strict=True):
            expected = self.expect(operation)
            if expected is StoreError:
                assert isinstance(answer, StoreError), operation
            else:
                assert answer == expected, operation

    async def run_all(self, burst: list[Accept | Hold | End]) -> list[Any]:
        return await asyncio.gather(*(self.to_store(operation) for operation in burst), return_exceptions=True)

    def to_store(self, operation: Accept | Hold | End) -> Coroutine[Any, Any, Any]:
        match operation:
            case Accept(task, limit):
                return self.store.accept(RUN, task, limit)
            case Hold(id, task, amount):
                return self.store.hold(id, RUN, task, amount)
            case End(id, None):
                return self.store.void(attempt(id), RUN)
            case End(id, used):
                assert used is not None
                return self.store.settle(attempt(id), RUN, used)

    def expect(self, operation: Accept | Hold | End) -> Any:
        match operation:
            case Accept(task, limit):
                if f"task:{task}" in self.accounts:
                    return StoreError
                self.accounts[f"task:{task}"] = Account(limit)
            case Hold(id, task, amount):
                return self.expect_hold(id, task, amount)
            case End(id, used):
                if id in self.open:
                    self.end(id, used or Amount())
        return None

    def expect_hold(self, id: str, task: str, amount: Amount) -> Any:
        names = (f"task:{task}", f"run:{RUN}")
        if names[0] not in self.accounts:
            return StoreError
        for name in names:
            if refusal := self.accounts[name].refuses(name, amount):
                return refusal
        if id in self.over:
            return StoreError  # an attempt holds once
        self.open[id], self.over[id] = (task, amount), (0, 0)
        for name in names:
            self.accounts[name].held += amount
        return None

    def end(self, id: str, used: Amount) -> None:
        task, held = self.open.pop(id)
        charged = Amount(micro_usd=min(used.micro_usd, held.micro_usd), tokens=min(used.tokens, held.tokens))
        self.over[id] = (used.micro_usd - charged.micro_usd, used.tokens - charged.tokens)
        for name in (f"task:{task}", f"run:{RUN}"):
            self.accounts[name].held -= held
            self.accounts[name].settled += charged

    @invariant()
    def the_books_agree(self) -> None:
        """What is on disk after the commit, seen by another connection."""
        if not hasattr(self, "books"):
            return
        self.books.check()
        assert self.books.accounts() == {n: (a.limit, a.settled, a.held) for n, a in self.accounts.items()}
        assert self.books.overruns() == self.over

    @rule()
    def reopen(self) -> None:
        """A store that is closed and opened again says the same."""
        path = Path(self.folder.name) / "store.db"
        self.runner.run(self.store.close())
        self.store = self.runner.run(SqliteStore.open(path))

    def teardown(self) -> None:
        if not hasattr(self, "books"):
            return
        self.runner.run(self.store.end(RUN, 2.0))
        for id in list(self.open):
            self.end(id, self.open[id][1])  # nobody can say any more what they bought
        self.the_books_agree()
        assert all(account.held == Amount() for account in self.accounts.values())
        self.books.close()
        self.runner.run(self.store.close())
        self.runner.close()
        self.folder.cleanup()


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)
