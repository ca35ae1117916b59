"""Operations that wait together are committed together, and do not harm each other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from swarm.errors import StoreError
from swarm.state.writer import GROUP, Writer

SCHEMA = "CREATE TABLE IF NOT EXISTS things (name TEXT PRIMARY KEY, size INTEGER CHECK (size < 100)) STRICT;"
Operation = Callable[[apsw.Connection], Any]


class Plain:
    """Keeps nothing in memory: its operations write for themselves."""

    def prepare(self, db: apsw.Connection) -> None:
        db.execute(SCHEMA)

    def begun(self) -> None: ...

    def flush(self) -> None: ...

    def lost(self) -> None: ...

    def wait_s(self) -> float | None:
        return None


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Writer]:
    writer = Writer(tmp_path / "w.db", Plain())
    yield writer
    await writer.close()


def add(name: str, size: int = 1) -> Operation:
    return lambda db: db.execute("INSERT INTO things VALUES (?, ?)", (name, size)).fetchall()


def add_and(error: Exception) -> Operation:
    def operation(db: apsw.Connection) -> None:
        db.execute("INSERT INTO things VALUES ('left behind', 1)")
        raise error

    return operation


async def names(writer: Writer) -> list[str]:
    rows = await writer.do(lambda db: db.execute("SELECT name FROM things ORDER BY name").fetchall())
    return [str(name) for (name,) in rows]


async def together(writer: Writer, *operations: Operation) -> list[Any]:
    """All of them in one group: they gather while the writer is held up."""
    begun, gate = threading.Event(), threading.Event()

    def hold_up(_: apsw.Connection) -> None:
        begun.set()
        gate.wait(60)

    first = asyncio.create_task(writer.do(hold_up))
    await asyncio.to_thread(begun.wait, 60)
    rest = [asyncio.create_task(writer.do(operation)) for operation in operations]
    await asyncio.sleep(0)
    gate.set()
    await first
    return await asyncio.gather(*rest, return_exceptions=True)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (add("one"), "the ledger refused"),
        (add("too big", 100), "the ledger refused"),
        (add("too big", 2**70), "OverflowError"),
        (add_and(StoreError("no such account")), "no such account"),
        (add_and(ValueError("a mistake of ours")), "ValueError: a mistake of ours"),
        (lambda db: db.execute("SELECT * FROM elsewhere"), "no such table"),
    ],
    ids=["constraint", "check", "overflow", "refusal", "surprise", "sql"],
)
async def test_a_failing_operation_harms_no_other(writer: Writer, bad: Operation, says: str) -> None:
    """Its caller gets a `StoreError` and its changes are undone; those before and after it are committed."""
    first, failed, last = await together(writer, add("one"), bad, add("two"))
    assert (first, last) == ([], [])
    assert isinstance(failed, StoreError)
    assert says in str(failed)
    assert await names(writer) == ["one", "two"]


async def test_when_the_database_undoes_a_group_it_is_done_one_by_one(writer: Writer) -> None:
    """Nobody is told that his work is kept when it is not, and nobody fails for another's fault."""
    first, failed, last = await together(writer, add("one"), lambda db: db.execute("ROLLBACK"), add("two"))
    assert (first, last, type(failed)) == ([], [], StoreError)
    assert await names(writer) == ["one", "two"]


async def test_a_full_disk_fails_what_needs_room(writer: Writer) -> None:
    """A write that finds no room is a `StoreError`; once there is room again it works."""
    size = await writer.do(lambda db: db.pragma("page_count"))
    await writer.do(lambda db: db.pragma("max_page_count", size))
    with pytest.raises(StoreError, match="the store cannot be written"):
        await writer.do(lambda db: db.execute("INSERT INTO things VALUES (?, 1)", ("x" * 100_000,)).fetchall())
    await writer.do(lambda db: db.pragma("max_page_count", 1_000_000))
    await writer.do(add("x" * 100_000))
    assert len(await names(writer)) == 1


class Broken(Plain):
    """A keeper whose writing fails as a disk does."""

    fails = False
    flushes = 0

    def flush(self) -> None:
        self.flushes += 1
        if self.fails:
            raise apsw.IOError("the disk is gone")


async def test_a_failing_disk_fails_the_group_once(tmp_path: Path) -> None:
    """It is no operation's fault, so trying each alone would only take time."""
    keeper = Broken()
    writer = Writer(tmp_path / "b.db", keeper)
    await writer.do(add("before"))
    before = keeper.flushes
    answers = await together(writer, lambda _: setattr(keeper, "fails", True), add("one"), add("two"))
    assert [str(answer) for answer in answers] == ["the store cannot be written: the disk is gone"] * 3
    assert keeper.flushes == before + 2, "one for what held it up, one for the group"
    keeper.fails = False
    assert await names(writer) == ["before"]
    await writer.close()


async def test_more_than_one_group_keeps_its_order(writer: Writer) -> None:
    """Operations are carried out in the order in which they were given."""
    seen: list[int] = []
    n = GROUP * 2 + 5
    await together(writer, *(lambda _, i=i: seen.append(i) for i in range(n)))
    assert seen == list(range(n))


async def test_operations_share_a_commit(writer: Writer, tmp_path: Path) -> None:
    """What comes in while the writer is busy waits for one commit: another connection sees all of it or nothing."""
    commits: list[int] = []
    other = apsw.Connection(str(tmp_path / "w.db"), flags=apsw.SQLITE_OPEN_READONLY)

    def look(_: apsw.Connection) -> None:
        commits.append(other.execute("SELECT count(*) FROM things").get)

    await together(writer, add("one"), look, add("two"), look)
    look(other)
    assert commits == [0, 0, 2]
    other.close()


async def test_two_event_loops_may_use_one_writer(writer: Writer) -> None:
    """Each caller is answered on the loop that he asked from."""
    there = await asyncio.to_thread(lambda: asyncio.run(writer.do(add("there"))))
    here = await writer.do(add("here"))
    assert (there, here) == ([], [])
    assert await names(writer) == ["here", "there"]


async def test_a_loop_that_has_ended_holds_up_nobody(writer: Writer) -> None:
    """An answer that nobody can take any more is dropped, and what was written stays written."""
    gate = threading.Event()

    def elsewhere() -> None:
        async def leave() -> None:
            asyncio.ensure_future(writer.do(lambda db: (gate.wait(60), add("kept")(db))))  # noqa: RUF006
            await asyncio.sleep(0)

        asyncio.run(leave())

    await asyncio.to_thread(elsewhere)
    gate.set()
    assert await names(writer) == ["kept"]
