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


# --- short operations


class Timed(Plain):
    """A keeper to whom something falls due, `due_s` from now, until a transaction has begun; counts transactions."""

    def __init__(self) -> None:
        self.transactions = 0
        self.due_s: float | None = None
        self.was_due = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def begun(self) -> None:
        self.transactions += 1
        if self.due_s is not None:
            self.due_s = None
            self._loop.call_soon_threadsafe(self.was_due.set)

    def wait_s(self) -> float | None:
        return self.due_s


@pytest.fixture
async def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Writer]:
    """A writer whose disk counts as quick, whatever else this machine has to do."""
    monkeypatch.setattr("swarm.state.writer.HERE_S", 1e6)
    writer = Writer(tmp_path / "w.db", Timed())
    while await writer.quick(where) != threading.get_ident():  # noqa: ASYNC110 - the thread begins
        await asyncio.sleep(0.001)
    yield writer
    await writer.close()


def where(_: apsw.Connection) -> int:
    return threading.get_ident()


async def test_a_short_operation_is_done_on_the_loop_that_asks(quick: Writer) -> None:
    """What another connection then sees is committed; a long one is the thread's."""
    assert await quick.quick(where) == threading.get_ident()
    assert await quick.do(where) != threading.get_ident()
    await quick.quick(add("one"))
    assert await names(quick) == ["one"]


async def test_a_slow_disk_is_left_to_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit of this machine is quick enough; the loop goes on meanwhile."""
    monkeypatch.setattr("swarm.state.writer.HERE_S", 1e-9)
    writer = Writer(tmp_path / "w.db", Plain())
    assert {await writer.quick(where) for _ in range(3)}.isdisjoint({threading.get_ident()})
    await writer.close()


async def test_what_several_ask_in_one_turn_is_one_commit(quick: Writer) -> None:
    """All but the first, who was alone when he asked; once a turn was crowded, he waits for the others as well."""
    keeper = quick._keeper
    assert isinstance(keeper, Timed)
    for expected in (2, 1):
        before = keeper.transactions
        assert await asyncio.gather(*(quick.quick(where) for _ in range(40))) == [threading.get_ident()] * 40
        assert keeper.transactions == before + expected


async def test_short_and_long_operations_keep_their_order(quick: Writer) -> None:
    """A short one does not overtake what was asked for before it, nor is it overtaken."""
    seen: list[int] = []
    kinds = [quick.quick, quick.quick, quick.do, quick.quick, quick.quick, quick.do, quick.quick]
    await asyncio.gather(*(ask(lambda _, i=i: seen.append(i)) for i, ask in enumerate(kinds)))
    assert seen == list(range(len(kinds)))


async def test_a_failing_short_operation_harms_no_other(quick: Writer) -> None:
    """Those beside it are committed, and its caller gets what the thread would have said."""
    asked = (
        quick.quick(operation) for operation in (add("one"), add("one"), add("two"), add("big", 100), add("three"))
    )
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [list, StoreError, list, StoreError, list]
    assert await names(quick) == ["one", "three", "two"]


async def test_another_program_s_transaction_does_not_hold_up_the_loop(quick: Writer, tmp_path: Path) -> None:
    """The thread waits for it; the loop goes on, and the operation is done when the other has ended."""
    other = apsw.Connection(str(tmp_path / "w.db"))
    other.execute("BEGIN IMMEDIATE")
    asked = asyncio.create_task(quick.quick(add("one")))
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not asked.done()
    other.execute("COMMIT")
    other.close()
    await asked
    assert await names(quick) == ["one"]


async def test_two_loops_may_ask_for_short_operations(quick: Writer) -> None:
    """The first loop does its own; another's are the thread's."""
    assert await quick.quick(where) == threading.get_ident()
    there = await asyncio.to_thread(lambda: asyncio.run(quick.quick(where)))
    assert there == quick._thread.ident


async def test_what_falls_due_earlier_than_thought_wakes_the_thread(quick: Writer) -> None:
    """A short operation may set a time that the thread, which is asleep, knows nothing of."""
    keeper = quick._keeper
    assert isinstance(keeper, Timed)
    await quick.quick(lambda _: setattr(keeper, "due_s", 0.001))
    async with asyncio.timeout(60):
        await keeper.was_due.wait()


async def test_the_log_is_copied_back_by_the_thread(quick: Writer, tmp_path: Path) -> None:
    """It does not grow for ever, and no commit waits for it."""
    large = "x" * 100_000
    for i in range(200):
        await quick.quick(add(f"{i} {large}"))
    await quick.do(where)
    assert (tmp_path / "w.db-wal").stat().st_size < 15_000_000, "20 MB were written"
