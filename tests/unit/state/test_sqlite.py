"""What a store in a file promises besides: its own paths, its memory, what another connection sees."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ledger_books import RUN, Books, attempt, record, tokens

from protocols.money import Amount, Limit
from swarm.errors import StoreError
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


async def test_a_store_in_memory_keeps_nothing() -> None:
    """Two of them know nothing of each other."""
    one, other = await SqliteStore.open(":memory:"), await SqliteStore.open(":memory:")
    await one.begin(record(), Limit())
    assert (len(await one.runs()), len(await other.runs())) == (1, 0)
    await one.close()
    await other.close()


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
