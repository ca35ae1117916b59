"""What every engine promises that outlives its program: other programs beside it, books that cannot be rewritten."""

from __future__ import annotations

import asyncio

import apsw
import psycopg
import pytest
from ledger_books import RUN, Clock, attempt, opened, record, result, sql, tokens

from protocols.money import Amount, Limit
from swarm.errors import StoreError
from swarm.state.base import Ended, Store
from swarm.state.records import Record

REFUSED = (apsw.ConstraintError, psycopg.IntegrityError)


@pytest.fixture
def place(shared: str) -> str:
    """`store` is one that others can look into."""
    return shared


async def test_what_was_kept_is_there_when_it_is_opened_again(place: str) -> None:
    """Everything that was acknowledged outlives the program that wrote it."""
    first = await opened(place)
    await first.begin(record(), Limit(tokens=10))
    await first.accept(RUN, "t-1", Limit(), body=b"body")
    await first.hold("a-1", RUN, "t-1", tokens(4))
    await first.finish(RUN, result("t-1"))
    await first.records.put([Record(kind="note", scope="-/s", key="k", body=b"noted")])
    await first.caches.put([Record(kind="answer", scope="-/s", key="k", body=b"answered")])
    await first.close()
    again = await opened(place)
    assert (await again.balance(f"run:{RUN}")).held == tokens(4)
    assert await again.results(RUN) == [result("t-1")]
    assert await again.tasks(RUN) == [("t-1", b"body")]
    kept = [await again.records.get("note", "-/s", "k"), await again.caches.get("answer", "-/s", "k")]
    assert [each and each.body for each in kept] == [b"noted", b"answered"]
    await again.close()


async def test_a_store_of_a_newer_program_is_refused(place: str) -> None:
    """What this program cannot know is not written to."""
    await (await opened(place)).close()
    sql(place, "UPDATE meta SET version = 4")
    with pytest.raises(StoreError, match=r"newer program \(version 4, this one reads 3\); upgrade"):
        await opened(place)


async def test_what_is_under_way_is_kept_when_the_store_is_closed(place: str) -> None:
    """Closing waits for what was given before it."""
    store = await opened(place)
    begun = asyncio.create_task(store.begin(record(), Limit()))
    await asyncio.sleep(0)
    await store.close()
    await begun
    again = await opened(place)
    assert len(await again.runs()) == 1
    await again.close()


# --- the books --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["held_tokens = 81", "settled_tokens = 81", "held_tokens = -1", "limit_tokens = -1"])
async def test_the_database_itself_refuses_to_be_overdrawn(store: Store, place: str, change: str) -> None:
    """Even a program that knows nothing of the rules cannot commit a broken account."""
    with pytest.raises(REFUSED):
        sql(place, f"UPDATE accounts SET {change} WHERE id = 'task:t-1'")


@pytest.mark.parametrize("change", ["UPDATE entries SET tokens = 0", "DELETE FROM entries"])
async def test_entries_are_only_added(store: Store, place: str, change: str) -> None:
    """Even a program that knows nothing of the rules cannot rewrite what was booked."""
    await store.hold("a-1", RUN, "t-1", tokens(20))
    with pytest.raises(REFUSED, match="entries are only added"):
        sql(place, change)


async def test_every_transaction_sums_to_nothing(store: Store, place: str) -> None:
    """What leaves one part of an account arrives in another, per unit."""
    await store.hold("a-1", RUN, "t-1", Amount(tokens=20, micro_usd=7))
    await store.settle(attempt("a-1"), RUN, Amount(tokens=12, micro_usd=9))
    legs = sql(place, "SELECT transaction_id, kind, part, sum(tokens), sum(micro_usd) FROM legs GROUP BY 1, 2, 3")
    assert sorted(legs) == [
        (1, "attempt", "free", -20, -7), (1, "attempt", "held", 20, 7),
        (2, "overrun", "outside", 0, -2), (2, "overrun", "over", 0, 2),
        (2, "settle", "free", 8, 0), (2, "settle", "held", -20, -7), (2, "settle", "spent", 12, 7),
    ]  # fmt: skip
    assert sql(place, "SELECT sum(tokens), sum(micro_usd) FROM legs GROUP BY transaction_id") == [(0, 0), (0, 0)]


@pytest.mark.parametrize(
    ("change", "back", "says"),
    [
        ("settled_tokens = 1", "settled_tokens = 0", "task:t-1 has spent"),
        ("held_tokens = 0", "held_tokens = 20", "its entries say"),
        ("overrun_ms = 7", "overrun_ms = 0", "task:t-1 has over"),
    ],
)
async def test_books_that_were_changed_by_hand_are_found_out(
    store: Store, place: str, change: str, back: str, says: str
) -> None:
    """The balances are derived from the entries, and nothing else is believed."""
    await store.hold("a-1", RUN, "t-1", tokens(20))
    await store.check()
    sql(place, f"UPDATE accounts SET {change} WHERE id = 'task:t-1'")
    with pytest.raises(StoreError, match=f"the books are wrong: .*{says}"):
        await store.check()
    assert any(says in problem for problem in await store.problems())
    sql(place, f"UPDATE accounts SET {back} WHERE id = 'task:t-1'")


@pytest.mark.parametrize(("change", "back"), [("state = 'void'", "state = 'sent'"), ("tokens = 1", "tokens = 20")])
async def test_holds_that_were_changed_by_hand_are_found_out(store: Store, place: str, change: str, back: str) -> None:
    """What is held is what the open holds say."""
    await store.hold("a-1", RUN, "t-1", tokens(20))
    sql(place, f"UPDATE holds SET {change}")
    with pytest.raises(StoreError, match=r"the books are wrong: .*its open holds say"):
        await store.check()
    sql(place, f"UPDATE holds SET {back}")


# --- checksums --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["attempts", "results", "tasks", "records"])
async def test_what_has_changed_on_disk_is_found_out(store: Store, place: str, table: str) -> None:
    """Reading it is an error that names it, and a check lists it; the rest can be read."""
    await store.settle(attempt("a-1"), RUN, Amount())
    await store.finish(RUN, result("t-1"))
    await store.accept(RUN, "t-2", Limit(), body=b"the body of a task")
    await store.records.put([Record(kind="note", scope=RUN, key="k", body=b"the body of a record")])
    reads = {
        "attempts": (lambda: store.attempts(RUN), "attempt 'a-1'"),
        "results": (lambda: store.results(RUN), "the result of 't-1'"),
        "tasks": (lambda: store.tasks(RUN), "task 't-2'"),
        "records": (lambda: store.records.get("note", RUN, "k"), "record note 'k' of 'r-1'"),
    }
    other = "'\\x00'" if place.startswith("postgresql") else "x'00'"
    sql(place, f"UPDATE {table} SET body = {other}")
    for name, (read, told) in reads.items():
        if name == table:
            with pytest.raises(StoreError, match=f"{told} is damaged: its checksum does not fit; `swarm store check`"):
                await read()
            assert await store.problems() == [f"{told}: its checksum does not fit"]
        else:
            await read()


# --- other programs ---------------------------------------------------------------------------------------------


async def test_two_programs_share_an_account_without_overdrawing_it(store: Store, place: str) -> None:
    """Each sees at once what the other has committed, however both hold at once."""
    other = await opened(place)
    ids = [f"a-{i}" for i in range(40)]
    turns = [one.hold(id, RUN, "t-1", tokens(3)) for id, one in zip(ids, [store, other] * 20, strict=True)]
    refusals = await asyncio.gather(*turns)
    assert refusals.count(None) == 80 // 3
    for one in (store, other):
        assert (await one.balance("task:t-1")).held == tokens(78)
        await one.check()
    await other.close()


async def test_the_holds_of_a_dead_program_end_and_those_of_a_living_one_do_not(shared: str) -> None:
    """Dead is whose count stood still for a while that the watcher measured himself."""
    clocks = [Clock(), Clock(), Clock()]
    living, dead, watcher = [await opened(shared, clock=clock, ttl_s=30.0) for clock in clocks]
    await watcher.begin(record(), Limit())
    await watcher.accept(RUN, "t-1", Limit())
    await watcher.hold("w", RUN, "t-1", tokens(1))
    await living.hold("l", RUN, "t-1", tokens(10))
    await dead.hold("d-sent", RUN, "t-1", tokens(100))
    await dead.hold("d", RUN, "t-1", tokens(1000), sent=False)
    for passed, held in ((0, 1111), (15, 1111), (14, 1111), (14, 1111), (11, 11)):
        for clock in (clocks[0], clocks[2]):
            clock.now += passed
        await living.balance(f"run:{RUN}")
        await watcher.balance(f"run:{RUN}")
        assert (await watcher.balance(f"run:{RUN}")).held == tokens(held), passed
    assert (await watcher.balance(f"run:{RUN}")).settled == tokens(100)
    with pytest.raises(StoreError, match="'d' is void"):
        await dead.sent("d")
    assert await watcher.recover(owner=living.owner) == Ended(settled=1)
    for store in (living, dead, watcher):
        await store.close()


async def test_an_idle_store_tends_to_what_is_due(shared: str) -> None:
    """A hold that nobody asks about expires all the same."""
    store = await opened(shared)
    await store.begin(record(), Limit())
    await store.accept(RUN, "t-1", Limit())
    await store.hold("a-1", RUN, "t-1", tokens(5), sent=False, expires_s=0.05)
    async with asyncio.timeout(30):
        while sql(shared, "SELECT id, state FROM holds") != [("a-1", "void")]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await store.close()


async def test_a_program_that_holds_nothing_leaves_no_trace(shared: str) -> None:
    """Nobody has to watch for one who has closed his books."""
    store = await opened(shared)
    await store.begin(record(), Limit())
    await store.accept(RUN, "t-1", Limit())
    await store.hold("a-1", RUN, "t-1", tokens(5))
    await store.balance("task:t-1")
    assert sql(shared, "SELECT id FROM owners") == [(store.owner,)]
    await store.void(attempt("a-1"), RUN)
    await store.close()
    assert sql(shared, "SELECT id FROM owners") == []
