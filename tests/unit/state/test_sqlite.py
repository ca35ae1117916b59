"""What a store in a file promises besides: other connections, other programs, opening and closing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest
from ledger_books import RUN, Books, Clock, attempt, record, result, tokens

from protocols.money import Amount, Limit
from swarm.errors import StoreError
from swarm.state.base import Ended
from swarm.state.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    """A store with one run of at most 100 tokens and one task of at most 80."""
    store = await SqliteStore.open(path)
    await store.begin(record(), Limit(tokens=100))
    await store.accept(RUN, "t-1", Limit(tokens=80))
    yield store
    await store.close()


async def test_more_than_was_held_is_an_overrun_and_breaks_no_limit(store: SqliteStore, path: Path) -> None:
    """The account is charged what was held; the rest is written down beside it."""
    assert await store.hold("a-1", RUN, "t-1", Amount(tokens=80, micro_usd=5)) is None
    await store.settle(attempt("a-1"), RUN, Amount(tokens=95, micro_usd=25))
    books = Books(path)
    books.check()
    assert books.accounts()["task:t-1"][1] == Amount(tokens=80, micro_usd=5)
    assert books.overruns() == {"a-1": (20, 15)}
    for account in ("task:t-1", f"run:{RUN}"):
        assert (await store.balance(account)).overrun == Amount(tokens=15, micro_usd=20)
    books.close()


async def test_the_database_itself_refuses_to_be_overdrawn(store: SqliteStore, path: Path) -> None:
    """Even a program that knows nothing of the rules cannot commit a broken account."""
    other = apsw.Connection(str(path))
    for change in ("held_tokens = 81", "settled_tokens = 81", "held_tokens = -1", "limit_tokens = -1"):
        with pytest.raises(apsw.ConstraintError):
            other.execute(f"UPDATE accounts SET {change} WHERE id = 'task:t-1'")
    other.close()


async def test_another_connection_never_sees_an_overdrawn_account(store: SqliteStore, path: Path) -> None:
    """While fifty tasks hold and settle side by side, every commit keeps every account within its limit."""
    done = threading.Event()
    looks = 0

    def look() -> None:
        nonlocal looks
        books = Books(path)
        while not done.is_set():
            books.check()
            looks += 1
        books.close()

    async def spend(i: int) -> int:
        spent = 0
        for j in range(4):
            id = f"a-{i}-{j}"
            if await store.hold(id, RUN, "t-1", tokens(9)) is None:
                await store.settle(attempt(id), RUN, tokens(5))
                spent += 5
        return spent

    watch = asyncio.create_task(asyncio.to_thread(look))
    spent = sum(await asyncio.gather(*(spend(i) for i in range(50))))
    done.set()
    await watch
    assert looks > 0
    assert (await store.balance("task:t-1")).settled == tokens(spent)
    assert 80 - 9 < spent <= 80, "what was left did not suffice for one more hold"


async def test_what_was_kept_is_there_when_it_is_opened_again(path: Path) -> None:
    """Everything that was acknowledged outlives the program that wrote it."""
    first = await SqliteStore.open(path)
    await first.begin(record(), Limit(tokens=10))
    await first.accept(RUN, "t-1", Limit())
    await first.hold("a-1", RUN, "t-1", tokens(4))
    await first.finish(RUN, result("t-1"))
    await first.close()
    again = await SqliteStore.open(path)
    assert (await again.balance(f"run:{RUN}")).held == tokens(4)
    assert await again.results(RUN) == [result("t-1")]
    await again.close()


async def test_a_store_in_memory_keeps_nothing() -> None:
    """Two of them know nothing of each other."""
    one, other = await SqliteStore.open(":memory:"), await SqliteStore.open(":memory:")
    await one.begin(record(), Limit())
    assert (len(await one.runs()), len(await other.runs())) == (1, 0)
    await one.close()
    await other.close()


async def test_a_store_of_a_newer_program_is_refused(path: Path) -> None:
    """What this program cannot know is not written to."""
    await (await SqliteStore.open(path)).close()
    db = apsw.Connection(str(path))
    db.execute("UPDATE meta SET version = 3")
    db.close()
    with pytest.raises(StoreError, match=r"newer program \(version 3, this one reads 2\); upgrade"):
        await SqliteStore.open(path)


@pytest.mark.parametrize("kind", ["below a file", "a folder", "not a database"])
async def test_a_path_that_cannot_be_used_is_a_store_error(tmp_path: Path, kind: str) -> None:
    """The error names the path."""
    target = tmp_path / "taken"
    match kind:
        case "below a file":
            target.write_text("")
            target = target / "store.db"
        case "a folder":
            target.mkdir()
        case _:
            target.write_bytes(b"This is a letter, and it is longer than the header of a database." * 20)
    with pytest.raises(StoreError, match=r"taken.*the store cannot be opened"):
        await SqliteStore.open(target)


async def test_a_closed_store_says_so(path: Path) -> None:
    """Work after the end fails at once, and closing twice is fine."""
    store = await SqliteStore.open(path)
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="the store was closed"):
        await store.begin(record(), Limit())


async def test_what_is_under_way_is_kept_when_the_store_is_closed(path: Path) -> None:
    """Closing waits for what was given before it."""
    store = await SqliteStore.open(path)
    begun = asyncio.create_task(store.begin(record(), Limit()))
    await asyncio.sleep(0)
    await store.close()
    await begun
    again = await SqliteStore.open(path)
    assert len(await again.runs()) == 1
    await again.close()


async def test_a_caller_who_goes_away_undoes_nothing(store: SqliteStore) -> None:
    """A cancelled wait leaves the operation as it is: done, once."""
    waiting = asyncio.create_task(store.hold("a-1", RUN, "t-1", tokens(30)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await store.balance("task:t-1")).held == tokens(30)


# --- the entries ------------------------------------------------------------------------------------------------


async def test_every_transaction_sums_to_nothing(store: SqliteStore, path: Path) -> None:
    """What leaves one part of an account arrives in another, per unit."""
    await store.hold("a-1", RUN, "t-1", Amount(tokens=20, micro_usd=7))
    await store.settle(attempt("a-1"), RUN, Amount(tokens=12, micro_usd=9))
    books = Books(path)
    legs = books.query("SELECT transaction_id, kind, part, sum(tokens), sum(micro_usd) FROM legs GROUP BY 1, 2, 3")
    assert sorted(legs) == [
        (1, "attempt", "free", -20, -7), (1, "attempt", "held", 20, 7),
        (2, "overrun", "outside", 0, -2), (2, "overrun", "over", 0, 2),
        (2, "settle", "free", 8, 0), (2, "settle", "held", -20, -7), (2, "settle", "spent", 12, 7),
    ]  # fmt: skip
    sums = books.query("SELECT sum(tokens), sum(micro_usd) FROM legs GROUP BY transaction_id")
    assert sums == [(0, 0), (0, 0)]
    books.close()


@pytest.mark.parametrize("change", ["UPDATE entries SET tokens = 0", "DELETE FROM entries"])
async def test_entries_are_only_added(store: SqliteStore, path: Path, change: str) -> None:
    """Even a program that knows nothing of the rules cannot rewrite what was booked."""
    await store.hold("a-1", RUN, "t-1", tokens(20))
    other = apsw.Connection(str(path))
    with pytest.raises(apsw.ConstraintError, match="entries are only added"):
        other.execute(change)
    other.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE accounts SET settled_tokens = 1 WHERE id = 'task:t-1'", "task:t-1 has spent"),
        ("UPDATE accounts SET held_tokens = 0", "its entries say"),
        ("UPDATE holds SET state = 'void'", "its open holds say"),
        ("UPDATE holds SET tokens = 1", "its open holds say"),
    ],
)
async def test_books_that_were_changed_by_hand_are_found_out(
    store: SqliteStore, path: Path, change: str, says: str
) -> None:
    """The balances are derived from the entries, and nothing else is believed."""
    await store.hold("a-1", RUN, "t-1", tokens(20))
    await store.check()
    other = apsw.Connection(str(path))
    other.execute(change)
    other.close()
    with pytest.raises(StoreError, match=f"the books are wrong: .*{says}"):
        await store.check()


# --- other programs ---------------------------------------------------------------------------------------------


async def test_two_programs_share_an_account_without_overdrawing_it(store: SqliteStore, path: Path) -> None:
    """Each sees at once what the other has committed, though both keep accounts in memory."""
    other = await SqliteStore.open(path)
    ids = [f"a-{i}" for i in range(40)]
    turns = [one.hold(id, RUN, "t-1", tokens(3)) for id, one in zip(ids, [store, other] * 20, strict=True)]
    refusals = await asyncio.gather(*turns)
    assert refusals.count(None) == 80 // 3
    for one in (store, other):
        assert (await one.balance("task:t-1")).held == tokens(78)
        await one.check()
    await other.close()


async def test_the_holds_of_a_dead_program_end_and_those_of_a_living_one_do_not(path: Path) -> None:
    """Dead is whose count stood still for a while that the watcher measured himself."""
    clocks = [Clock(), Clock(), Clock()]
    living, dead, watcher = [SqliteStore(path, clock=clock, ttl_s=30.0) for clock in clocks]
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


async def test_an_idle_store_tends_to_what_is_due(path: Path) -> None:
    """A hold that nobody asks about expires all the same."""
    store = await SqliteStore.open(path)
    await store.begin(record(), Limit())
    await store.accept(RUN, "t-1", Limit())
    await store.hold("a-1", RUN, "t-1", tokens(5), sent=False, expires_s=0.05)
    books = Books(path)
    async with asyncio.timeout(30):
        while books.accounts()["task:t-1"][2] != Amount():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert books.query("SELECT id, state FROM holds") == [("a-1", "void")]
    books.close()
    await store.close()


async def test_a_program_that_holds_nothing_leaves_no_trace(path: Path) -> None:
    """Nobody has to watch for one who has closed his books."""
    store = await SqliteStore.open(path)
    await store.begin(record(), Limit())
    await store.accept(RUN, "t-1", Limit())
    await store.hold("a-1", RUN, "t-1", tokens(5))
    await store.balance("task:t-1")
    books = Books(path)
    assert books.query("SELECT id FROM owners") == [(store.owner,)]
    await store.void(attempt("a-1"), RUN)
    await store.close()
    assert books.query("SELECT id FROM owners") == []
    books.close()


async def test_what_is_kept_in_memory_may_be_dropped_at_any_time(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory does not grow with the run, and what was dropped is read again."""
    monkeypatch.setattr("swarm.state.rows.KEPT", 0)
    for i in range(5):
        await store.accept(RUN, f"t-more-{i}", Limit())
        assert await store.hold(f"a-{i}", RUN, f"t-more-{i}", tokens(10)) is None
        await store.settle(attempt(f"a-{i}"), RUN, tokens(4))
    assert (await store.balance(f"run:{RUN}")).settled == tokens(20)
    await store.check()
