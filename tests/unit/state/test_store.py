"""The store keeps what it was told, once, and says clearly what it cannot do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest
from ledger_books import RUN, Books, attempt, record, result, tokens

from protocols.money import Amount, Limit
from protocols.records import RunRecord
from swarm.errors import StoreError
from swarm.state.base import Refusal
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


# --- the ledger -------------------------------------------------------------------------------------------------


async def test_a_refusal_says_what_stands_in_the_way(store: SqliteStore) -> None:
    """The account, the unit, what was wanted, what is left, and whether waiting helps."""
    assert await store.hold("a-1", RUN, "t-1", tokens(50)) is None
    assert await store.hold("a-2", RUN, "t-1", tokens(40)) == Refusal("task:t-1", "tokens", 40, 30, passing=True)
    await store.settle(attempt("a-1"), RUN, tokens(50))
    assert await store.hold("a-2", RUN, "t-1", tokens(40)) == Refusal("task:t-1", "tokens", 40, 30, passing=False)


async def test_a_refused_hold_leaves_nothing_behind(store: SqliteStore) -> None:
    """When the run has no room, nothing stays held on the task either."""
    await store.accept(RUN, "t-2", Limit())
    assert await store.hold("a-1", RUN, "t-1", tokens(70)) is None
    refusal = await store.hold("a-2", RUN, "t-2", tokens(40))
    assert refusal == Refusal(f"run:{RUN}", "tokens", 40, 30, passing=True)
    assert (await store.balance("task:t-2")).held == Amount()


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


async def test_negative_use_is_no_credit(store: SqliteStore) -> None:
    """A host that reports less than nothing gets nothing back."""
    assert await store.hold("a-1", RUN, "t-1", tokens(10)) is None
    await store.settle(attempt("a-1"), RUN, Amount(tokens=-50, micro_usd=-1))
    balance = await store.balance("task:t-1")
    assert (balance.settled, balance.held) == (Amount(), Amount())


async def test_a_negative_hold_is_refused(store: SqliteStore) -> None:
    """Nobody makes room by holding less than nothing."""
    with pytest.raises(StoreError, match="negative"):
        await store.hold("a-1", RUN, "t-1", tokens(-1))


async def test_an_attempt_ends_once(store: SqliteStore) -> None:
    """What was said first stays: in the books and in the journal."""
    assert await store.hold("a-1", RUN, "t-1", tokens(10)) is None
    await store.settle(attempt("a-1", tokens_in=7), RUN, tokens(7))
    await store.void(attempt("a-1", outcome="cancelled"), RUN)
    await store.settle(attempt("a-1", tokens_in=9), RUN, tokens(9))
    assert (await store.balance("task:t-1")).settled == tokens(7)
    assert await store.attempts(RUN) == [attempt("a-1", tokens_in=7)]


async def test_the_end_of_a_run_charges_what_nobody_accounted_for(store: SqliteStore) -> None:
    """A hold that is still open was perhaps spent, so it counts as spent."""
    await store.hold("a-1", RUN, "t-1", tokens(10))
    await store.hold("a-2", RUN, "t-1", tokens(20))
    await store.settle(attempt("a-1"), RUN, tokens(3))
    await store.end(RUN, 9.0)
    balance = await store.balance(f"run:{RUN}")
    assert (balance.settled, balance.held) == (tokens(23), Amount())


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


async def test_an_unknown_account_is_an_error(store: SqliteStore) -> None:
    """Neither a balance nor a hold is made up for a task that was not accepted."""
    with pytest.raises(StoreError, match="'task:t-9' does not exist"):
        await store.balance("task:t-9")
    with pytest.raises(StoreError, match="'task:t-9' does not exist"):
        await store.hold("a-1", RUN, "t-9", tokens(1))


# --- the journal ------------------------------------------------------------------------------------------------


async def test_a_second_terminal_result_is_refused(store: SqliteStore) -> None:
    """A task ends once; the first end stays."""
    await store.finish(RUN, result("t-1", ms=5))
    with pytest.raises(StoreError, match="the ledger refused"):
        await store.finish(RUN, result("t-1", ms=6))
    assert await store.results(RUN) == [result("t-1", ms=5)]


async def test_a_task_is_accepted_once(store: SqliteStore) -> None:
    """The second acceptance would be a second budget."""
    with pytest.raises(StoreError, match="the ledger refused"):
        await store.accept(RUN, "t-1", Limit(tokens=1000))
    assert (await store.balance("task:t-1")).limit == Limit(tokens=80)


async def test_runs_keep_apart(store: SqliteStore) -> None:
    """Each run has its own account, attempts and results; the list has the oldest first."""
    early = RunRecord(id="r-0", swarm="s", plan_hash="h", started=0.5, about={"x": None})
    await store.begin(early, Limit())
    await store.accept("r-0", "t-9", Limit())
    await store.settle(attempt("a-9", "t-9"), "r-0", Amount())
    await store.finish("r-0", result("t-9"))
    await store.end("r-0", 7.5)
    runs = await store.runs()
    assert [run.id for run in runs] == ["r-0", RUN]
    assert (runs[0].finished, runs[1].finished, runs[0].about) == (7.5, None, {"x": None})
    assert await store.run("r-0") == runs[0]
    assert await store.run("r-7") is None
    assert ([a.id for a in await store.attempts("r-0")], await store.attempts(RUN)) == (["a-9"], [])
    assert ([r.task for r in await store.results("r-0")], await store.results(RUN)) == (["t-9"], [])


# --- opening and closing ----------------------------------------------------------------------------------------


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
    db.execute("UPDATE meta SET version = 2")
    db.close()
    with pytest.raises(StoreError, match=r"newer program \(version 2, this one reads 1\); upgrade"):
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
