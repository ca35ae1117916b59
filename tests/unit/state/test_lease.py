"""A shard that grants holds from memory never grants what the account does not have, and never hides what it spent."""

from __future__ import annotations

import asyncio
import os
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ledger_books import RUN, attempt, record, result, tokens

from protocols.money import Amount, Limit
from swarm.errors import KeyConflict, StoreError
from swarm.state.base import Ended, Refusal, Repeated, Store
from swarm.state.lease import LeasedStore, leased
from swarm.state.memory import MemoryStore
from swarm.state.slice import slice_of

STEPS = int(os.environ.get("SWARM_LEDGER_STEPS", "200"))


class Watched:
    """A store that counts what it is asked for, and fails when told to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: list[str] = []
        self.fails = False
        self.before: asyncio.Event | None = None  # waited for before anything is done

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)

        async def call(*given: Any, **named: Any) -> Any:
            self.calls.append(name)
            if self.fails:
                raise StoreError("the disk is gone")
            if self.before is not None:
                await self.before.wait()
            return await real(*given, **named)

        return call


async def shard(limit: Limit, slice: Amount, task: Limit | None = None) -> tuple[Watched, LeasedStore]:
    store = Watched(MemoryStore())
    leased = LeasedStore(store, RUN, slice)  # type: ignore[arg-type]
    await leased.begin(record(), limit)
    await leased.accept(RUN, "t-1", task or Limit())
    store.calls.clear()
    return store, leased


async def test_holds_within_the_slice_cost_no_transaction() -> None:
    """One lease; then each attempt costs one call, which ends it in the ledger and in the journal."""
    store, leased = await shard(Limit(tokens=1000), tokens(500))
    for i in range(10):
        assert await leased.hold(f"a-{i}", RUN, "t-1", tokens(30)) is None
        await leased.settle(attempt(f"a-{i}"), RUN, tokens(20))
    assert store.calls == ["lease"] + 10 * ["draw"]
    assert len(await leased.attempts(RUN)) == 10
    balance = await leased.balance(f"run:{RUN}")
    assert (balance.settled, balance.held) == (tokens(200), tokens(300))
    assert (await leased.balance("task:t-1")).settled == tokens(200)
    await leased.finish(RUN, result("t-1"))
    await leased.end(RUN, 2.0)
    balance = await leased.balance(f"run:{RUN}")
    assert (balance.settled, balance.held) == (tokens(200), Amount())
    await leased.check()
    await leased.close()


async def test_the_lease_is_held_and_others_cannot_have_it() -> None:
    """What a shard might spend, nobody else can."""
    store, leased = await shard(Limit(tokens=100), tokens(80))
    await leased.hold("a-1", RUN, "t-1", tokens(10))
    other = LeasedStore(store, RUN, tokens(80))  # type: ignore[arg-type]
    await other.accept(RUN, "t-2", Limit())
    assert await other.hold("b-1", RUN, "t-2", tokens(20)) is None
    assert await other.hold("b-2", RUN, "t-2", tokens(20)) == Refusal(f"run:{RUN}", "tokens", 20, 0, passing=True)
    await leased.void(attempt("a-1"), RUN)
    await leased.release()
    assert await other.hold("b-2", RUN, "t-2", tokens(20)) is None
    await other.close()


async def test_a_slice_that_runs_low_is_topped_up_in_the_background() -> None:
    """The hold that comes next need not wait."""
    store, leased = await shard(Limit(tokens=1000), tokens(100))
    await leased.hold("a-1", RUN, "t-1", tokens(80))
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    store.calls.clear()
    assert await leased.hold("a-2", RUN, "t-1", tokens(90)) is None
    assert store.calls == []
    await leased.close()


async def test_a_hold_larger_than_the_slice_is_asked_for_exactly() -> None:
    """Neither cut nor refused, as long as the account has it; then refused with what is really left."""
    _, leased = await shard(Limit(tokens=100), tokens(10))
    assert await leased.hold("a-1", RUN, "t-1", tokens(95)) is None
    assert await leased.hold("a-2", RUN, "t-1", tokens(6)) == Refusal(f"run:{RUN}", "tokens", 6, 5, passing=True)
    await leased.settle(attempt("a-1"), RUN, tokens(95))
    assert await leased.hold("a-2", RUN, "t-1", tokens(6)) == Refusal(f"run:{RUN}", "tokens", 6, 5, passing=False)
    assert await leased.hold("a-2", RUN, "t-1", tokens(5)) is None
    await leased.close()


async def test_a_task_s_own_limit_counts_before_anything_is_journalled() -> None:
    """The shard knows what its tasks hold and have spent, also by holds with a key that the store granted."""
    _, leased = await shard(Limit(tokens=1000), tokens(500), Limit(tokens=50))
    assert await leased.hold("a-1", RUN, "t-1", tokens(20)) is None
    assert await leased.hold("a-2", RUN, "t-1", tokens(20), key="k") is None
    assert await leased.hold("a-2", RUN, "t-1", tokens(20), key="k") is None
    assert await leased.hold("a-3", RUN, "t-1", tokens(11)) == Refusal("task:t-1", "tokens", 11, 10, passing=True)
    await leased.settle(attempt("a-2"), RUN, tokens(5))
    assert await leased.hold("a-3", RUN, "t-1", tokens(25)) is None
    again = await leased.hold("a-2", RUN, "t-1", tokens(20), key="k")
    assert isinstance(again, Repeated)
    with pytest.raises(KeyConflict):
        await leased.hold("a-4", RUN, "t-1", tokens(1), key="k")
    assert await leased.hold("a-4", RUN, "t-1", tokens(1)) == Refusal("task:t-1", "tokens", 1, 0, passing=True)
    for id in ("a-1", "a-3"):
        await leased.void(attempt(id), RUN)
    balance = await leased.balance("task:t-1")
    assert (balance.settled, balance.held) == (tokens(5), Amount())
    await leased.close()


async def test_a_dead_shard_is_charged_its_whole_lease() -> None:
    """Nobody can say what it had spent since it last told; it cannot have been more."""
    store, leased = await shard(Limit(tokens=1000), tokens(100))
    for i in range(3):
        await leased.hold(f"a-{i}", RUN, "t-1", tokens(10))
    await leased.settle(attempt("a-0"), RUN, tokens(7))
    assert await store.recover(run=RUN) == Ended(settled=1)
    balance = await store.balance(f"run:{RUN}")
    assert (balance.settled, balance.held) == (tokens(100), Amount())
    assert await store.attempts(RUN) == [attempt("a-0")], "what had ended is in the journal"
    with pytest.raises(StoreError, match="has ended"):
        await leased.settle(attempt("a-1"), RUN, tokens(7))
    with pytest.raises(StoreError):
        await leased.hold("a-9", RUN, "t-1", tokens(1))


async def test_the_end_charges_what_was_sent_and_not_ended() -> None:
    """The rest of the lease is free again, and so is what was never sent."""
    store, leased = await shard(Limit(tokens=1000), tokens(100))
    await leased.hold("a-1", RUN, "t-1", tokens(10))
    await leased.hold("a-2", RUN, "t-1", tokens(20), sent=False)
    await leased.hold("a-3", RUN, "t-1", tokens(30), sent=False)
    await leased.sent("a-3")
    await leased.end(RUN, 2.0)
    balance = await store.balance(f"run:{RUN}")
    assert (balance.settled, balance.held) == (tokens(40), Amount())
    await leased.close()


async def test_without_its_store_a_shard_grants_nothing() -> None:
    """What could not be journalled is kept and told later, once."""
    store, leased = await shard(Limit(tokens=1000), tokens(100))
    await leased.hold("a-1", RUN, "t-1", tokens(10))
    store.fails = True
    with pytest.raises(StoreError, match="the disk is gone"):
        await leased.settle(attempt("a-1"), RUN, tokens(8))
    with pytest.raises(StoreError, match="the disk is gone"):
        await leased.hold("a-2", RUN, "t-1", tokens(10))
    store.fails = False
    assert await leased.hold("a-2", RUN, "t-1", tokens(10)) is None
    await leased.settle(attempt("a-1"), RUN, tokens(9))
    assert await leased.attempts(RUN) == [attempt("a-1")]
    assert (await leased.balance("task:t-1")).settled == tokens(8), "as it was said first"
    await leased.close()


async def test_an_interrupted_end_is_told_again_as_it_was() -> None:
    """Whoever goes away while it is written may come again, and it counts once."""
    store, leased = await shard(Limit(tokens=1000), tokens(100))
    await leased.hold("a-1", RUN, "t-1", tokens(10))
    ending = asyncio.create_task(leased.settle(attempt("a-1"), RUN, tokens(7)))
    store.before = asyncio.Event()
    await asyncio.sleep(0)
    ending.cancel()
    assert isinstance((await asyncio.gather(ending, return_exceptions=True))[0], asyncio.CancelledError)
    store.before = None
    await leased.settle(attempt("a-1"), RUN, tokens(7))
    await leased.settle(attempt("a-1"), RUN, tokens(7))
    assert await leased.attempts(RUN) == [attempt("a-1")]
    assert (await leased.balance("task:t-1")).settled == tokens(7)
    await leased.close()


async def test_a_slice_without_money_leaves_holds_of_money_to_the_store() -> None:
    """A crash then charges exactly what was held; the shard's own task counts it too, and its end frees the rest."""
    store, leased = await shard(Limit(tokens=1000, micro_usd=50), tokens(100), Limit(micro_usd=30))
    await leased.hold("a-1", RUN, "t-1", tokens(10))
    paid = Amount(tokens=20, micro_usd=20)
    assert await leased.hold("a-2", RUN, "t-1", paid, sent=False) is None
    await leased.sent("a-2")
    assert store.calls == ["lease", "hold", "sent"]
    assert await leased.hold("a-3", RUN, "t-1", paid) == Refusal("task:t-1", "usd", 20, 10, passing=True)
    balance = await leased.balance(f"run:{RUN}")
    assert balance.held == Amount(tokens=120, micro_usd=20)
    await leased.settle(attempt("a-2"), RUN, Amount(tokens=20, micro_usd=10))
    assert await leased.hold("a-3", RUN, "t-1", paid) is None
    assert await store.recover(run=RUN) == Ended(settled=2)
    assert (await store.balance(f"run:{RUN}")).settled == Amount(tokens=140, micro_usd=30)


async def test_a_hold_of_money_may_have_what_the_lease_keeps() -> None:
    """The shard's own reserve stands in nobody's way who belongs to it."""
    _, leased = await shard(Limit(tokens=100, micro_usd=50), tokens(80))
    await leased.hold("a-1", RUN, "t-1", tokens(10))
    assert await leased.hold("a-2", RUN, "t-1", Amount(tokens=85, micro_usd=5)) is None
    refusal = await leased.hold("a-3", RUN, "t-1", Amount(tokens=6, micro_usd=5))
    assert refusal == Refusal(f"run:{RUN}", "tokens", 6, 5, passing=True)
    await leased.settle(attempt("a-2"), RUN, Amount(tokens=85, micro_usd=4))
    await leased.end(RUN, 2.0)
    balance = await leased.balance(f"run:{RUN}")
    assert (balance.settled, balance.held) == (Amount(tokens=95, micro_usd=4), Amount())
    await leased.close()


async def test_an_attempt_under_a_lease_ends_once() -> None:
    """What was said first is what is journalled, wherever it is on its way."""
    _, leased = await shard(Limit(tokens=1000), tokens(100))
    await leased.hold("a-1", RUN, "t-1", tokens(10))
    await leased.settle(attempt("a-1"), RUN, tokens(7))
    await leased.void(attempt("a-1", outcome="cancelled"), RUN)
    assert await leased.attempts(RUN) == [attempt("a-1")]
    await leased.settle(attempt("a-1"), RUN, tokens(9))
    await leased.void(attempt("a-free", outcome="unavailable"), RUN)
    assert [a.id for a in await leased.attempts(RUN)] == ["a-1", "a-free"]
    assert (await leased.balance("task:t-1")).settled == tokens(7)
    await leased.close()


async def test_a_run_leases_tokens_and_no_money() -> None:
    """What a crash charges beyond what was spent costs nobody anything; plain objects need no lease."""
    memory = MemoryStore()
    assert leased(memory, RUN, Limit()) is memory
    store = Watched(memory)
    run = leased(store, RUN, Limit(micro_usd=1000, tokens=1000))  # type: ignore[arg-type]
    await run.begin(record(), Limit(micro_usd=1000, tokens=1000))
    await run.accept(RUN, "t-1", Limit())
    assert await run.hold("a-1", RUN, "t-1", tokens(10)) is None
    assert (await memory.balance(f"run:{RUN}")).held == tokens(50)
    assert await run.hold("a-2", RUN, "t-1", Amount(micro_usd=5), sent=False) is None
    assert (await memory.balance(f"run:{RUN}")).held == Amount(micro_usd=5, tokens=50)
    await run.close()


def test_a_slice_is_a_share_of_what_is_limited() -> None:
    """And a round number of what is not."""
    assert slice_of(Limit(micro_usd=1000, ms=400), 0.1) == Amount(micro_usd=100, tokens=50_000, ms=40)


amounts = st.builds(Amount, micro_usd=st.integers(0, 40), tokens=st.integers(0, 40))


class Shards(RuleBasedStateMachine):
    """Shards that lease, spend, die and come again, beside one that holds at the store itself."""

    @initialize(
        limit=st.builds(Limit, micro_usd=st.none() | st.integers(0, 300), tokens=st.integers(0, 300)), slice=amounts
    )
    def begin(self, limit: Limit, slice: Amount) -> None:
        self.limit, self.slice = limit, slice
        self.runner = asyncio.Runner()
        self.store = Watched(MemoryStore())
        self.runner.run(self.store.begin(record(), limit))
        self.runner.run(self.store.accept(RUN, "t-0", Limit()))
        self.shards: list[tuple[Any, str]] = [(self.store, "t-0")]
        self.open: dict[str, tuple[Any, str, Amount]] = {}
        self.spent = Amount()
        self.lost = False
        self.n = 0
        for _ in range(2):
            self.shards.append(self.fresh())

    def fresh(self) -> tuple[Any, str]:
        self.n += 1
        leased = LeasedStore(self.store, RUN, self.slice)  # type: ignore[arg-type]
        self.runner.run(leased.accept(RUN, f"t-{self.n}", Limit(tokens=100)))
        return leased, f"t-{self.n}"

    @rule(who=st.integers(0, 2), amount=amounts)
    def hold(self, who: int, amount: Amount) -> None:
        store, task = self.shards[who]
        self.n += 1
        refusal = self.runner.run(store.hold(f"a-{self.n}", RUN, task, amount))
        if refusal is None:
            self.open[f"a-{self.n}"] = (store, task, amount)
        else:
            assert refusal.left < refusal.wanted, "refused though there was room"

    @rule(which=st.integers(0, 100), used=st.none() | amounts, fails=st.booleans())
    def end(self, which: int, used: Amount | None, fails: bool) -> None:
        """With `fails`, the disk is gone when it is said first."""
        if not self.open:
            return
        id = sorted(self.open)[which % len(self.open)]
        store, task, held = self.open.pop(id)

        async def say() -> None:
            await (store.void(attempt(id, task), RUN) if used is None else store.settle(attempt(id, task), RUN, used))

        self.store.fails = fails
        with pytest.raises(StoreError) if fails else nullcontext():
            self.runner.run(say())
        self.store.fails = False
        if fails:
            self.runner.run(say())
        if used is not None:
            charged = Amount(micro_usd=min(used.micro_usd, held.micro_usd), tokens=min(used.tokens, held.tokens))
            self.spent += charged

    @rule(who=st.integers(1, 2))
    def journal(self, who: int) -> None:
        self.runner.run(self.shards[who][0].flush())

    @rule(who=st.integers(1, 2))
    def close(self, who: int) -> None:
        """An orderly end: its open holds are charged, everything else goes back."""
        store, _ = self.shards[who]
        for id in [id for id, (of, *_) in self.open.items() if of is store]:
            self.spent += self.open.pop(id)[2]
        self.runner.run(store.release())
        self.shards[who] = self.fresh()

    @rule(who=st.integers(1, 2))
    def die(self, who: int) -> None:
        """Nothing is told any more; the lease is charged."""
        store, _ = self.shards[who]
        for id in [id for id, (of, *_) in self.open.items() if of is store]:
            self.spent += self.open.pop(id)[2]
        self.runner.run(self.bury(store))
        self.lost = True
        self.shards[who] = self.fresh()

    async def bury(self, store: LeasedStore) -> None:
        if store._topping_up is not None:
            store._topping_up.cancel()
            await asyncio.gather(store._topping_up, return_exceptions=True)
        balance = await self.store.balance(f"run:{RUN}")
        left = Amount(micro_usd=10**6, tokens=10**6)
        await self.store.give_back(store.lease_id, left)
        assert (await self.store.balance(f"run:{RUN}")).settled.tokens >= balance.settled.tokens

    @invariant()
    def nobody_overspends(self) -> None:
        """Settled and held cover all that was spent or may be, and never go beyond the limit."""
        if not hasattr(self, "shards"):
            return
        self.runner.run(self.store.check())
        balance = self.runner.run(self.store.balance(f"run:{RUN}"))
        booked = balance.settled + balance.held
        real = sum((amount for *_, amount in self.open.values()), self.spent)
        assert real.tokens <= booked.tokens <= (self.limit.tokens or 0)
        assert real.micro_usd <= booked.micro_usd
        assert self.limit.micro_usd is None or booked.micro_usd <= self.limit.micro_usd

    def teardown(self) -> None:
        if hasattr(self, "shards"):
            for who in (1, 2):
                self.close(who)
            self.runner.run(self.store.end(RUN, 0.0))  # what is open at the store itself is charged, whoever held it
            self.spent = sum((amount for *_, amount in self.open.values()), self.spent)
            self.open.clear()
            balance = self.runner.run(self.store.balance(f"run:{RUN}"))
            if not self.lost:
                assert balance.settled == self.spent, "to the last token, as nobody died"
            self.nobody_overspends()
            self.runner.close()


TestShards = Shards.TestCase
TestShards.settings = settings(max_examples=max(1, STEPS // 20), stateful_step_count=20, deadline=None)
