"""Programs that are killed, and programs side by side: what was acknowledged is there, and the books are right."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_books import Books, tokens

from protocols.money import Amount, Limit
from swarm.state.sqlite import SqliteStore

WRITER = """
import asyncio, sys
from protocols.money import Amount, Limit
from protocols.records import Attempt, RunRecord
from protocols.tasks import Result
from swarm.state.records import Record
from swarm.state.sqlite import SqliteStore

path, run, side_by_side, rounds, *_ = sys.argv[1:]

def say(*words):
    print(*words, flush=True)

async def work(store, i):
    for j in range(int(rounds)):
        task = f"t-{run}-{i}-{j}"
        await store.accept(run, task, Limit(tokens=10), body=task.encode())
        say("accepted", task)
        await store.records.put([Record(kind="effect", scope=run, key=task, body=b"sent")], new=True)
        say("noted", task)
        assert await store.hold(f"a-{task}", run, task, Amount(tokens=7)) is None
        say("held", task)
        made = Attempt(id=f"a-{task}", task=task, step="s", tier="t", outcome="accepted")
        await store.settle(made, run, Amount(tokens=3))
        say("settled", task)
        await store.finish(run, Result(task=task, status="done"))
        say("finished", task)

async def main():
    store = await SqliteStore.open(path)
    await store.begin(RunRecord(id=run, swarm="s", plan_hash="h", started=1.0), Limit(tokens=10_000_000))
    await asyncio.gather(*(work(store, i) for i in range(int(side_by_side))))
    await store.close()

asyncio.run(main())
"""


class Children:
    """Processes that write to one store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.running: list[subprocess.Popen[str]] = []

    def start(self, run: str, side_by_side: int, rounds: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, str(self.path), run, str(side_by_side), str(rounds)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.running.append(child)
        return child


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    children = Children(tmp_path / "store.db")
    yield children
    for child in children.running:
        child.kill()
        child.communicate()


async def test_a_killed_program_loses_nothing_that_was_acknowledged(children: Children) -> None:
    """SIGKILL in the middle of many writes: every acknowledged row is there, and what was held counts as spent."""
    child = children.start("r-1", side_by_side=24, rounds=1_000_000)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(600)]
    child.send_signal(signal.SIGKILL)
    lines += child.stdout.readlines()
    said: dict[str, set[str]] = {"accepted": set(), "noted": set(), "held": set(), "settled": set(), "finished": set()}
    for line in lines:
        if line.endswith("\n"):
            word, task = line.split()
            said[word].add(task)
    assert min(len(tasks) for tasks in said.values()) > 24

    store = await SqliteStore.open(children.path)
    books = Books(children.path)
    books.check()
    accounts = books.accounts()
    assert {f"task:{task}" for task in said["accepted"]} <= accounts.keys()
    assert await store.problems() == []
    assert {task for task, body in await store.tasks("r-1") if body == task.encode()} >= said["accepted"]
    assert {note.key for note in await store.records.scan("effect", "r-1", limit=10**6)} >= said["noted"]
    assert {a.task for a in await store.attempts("r-1")} >= said["settled"]
    assert {r.task for r in await store.results("r-1")} >= said["finished"]
    for task in said["held"] - said["settled"]:
        _, settled, held = accounts[f"task:{task}"]
        assert (settled, held) in ((Amount(), tokens(7)), (tokens(3), Amount())), "held, or settled unacknowledged"

    run = await store.run("r-1")
    assert run is not None
    assert run.finished is None
    held = (await store.balance("run:r-1")).held
    settled = (await store.balance("run:r-1")).settled
    await store.end("r-1", 9.0)
    books.check()
    balance = await store.balance("run:r-1")
    assert (balance.held, balance.settled) == (Amount(), settled + held)
    books.close()
    await store.close()


async def test_two_programs_may_use_one_store(children: Children) -> None:
    """They wait for each other instead of failing, and their runs keep apart."""
    both = [children.start(run, side_by_side=2, rounds=60) for run in ("r-1", "r-2")]
    for child in both:
        child.communicate(timeout=120)
    assert [child.returncode for child in both] == [0, 0]
    store = await SqliteStore.open(children.path)
    for run in ("r-1", "r-2"):
        assert len(await store.results(run)) == 120
        balance = await store.balance(f"run:{run}")
        assert (balance.settled, balance.held, balance.limit) == (tokens(360), Amount(), Limit(tokens=10_000_000))
    await store.close()
