"""A full disk is a `StoreError` for whoever writes; everybody may read, and work goes on when there is room again."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_disk import FaultyDisk
from ledger_books import RUN, attempt, record, result, tokens

from protocols.money import Amount, Limit
from swarm.errors import StoreError
from swarm.state.records import Record
from swarm.state.sqlite import SqliteStore

MIB = 2**20


@dataclass
class Disk:
    """`fill` takes what room there is, `clear` gives it back."""

    folder: Path
    fill: Callable[[], object]
    clear: Callable[[], object]


@pytest.fixture(params=["tmpfs", "told"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """8 MiB of real disk, or one that says it is full."""
    if request.param == "told":
        faulty = FaultyDisk(0, "none")
        yield Disk(tmp_path, lambda: setattr(faulty, "full", True), lambda: setattr(faulty, "full", False))
        faulty.unregister()
        return
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small disk; the other variant says that it is full")
    filler = small / "filler"
    yield Disk(small, lambda: filler.write_bytes(bytes(4 * MIB)), filler.unlink)
    subprocess.run(["umount", "-l", small], check=True)


async def test_a_full_disk_is_an_error_until_there_is_room(disk: Disk) -> None:
    """Nothing is half there, what was kept can be read, no hold is granted, and afterwards all of it is done."""
    store = await SqliteStore.open(disk.folder / "store.db")
    await store.begin(record(), Limit())
    await store.accept(RUN, "t-1", Limit(tokens=10**9), body=b"body")
    await store.hold("a-0", RUN, "t-1", tokens(1))
    disk.fill()
    kept, refused = 0, []
    while len(refused) < 10 and kept < 10_000:
        try:
            await store.settle(attempt(f"a-{kept}", reason="r" * 20_000), RUN, Amount())
            kept += 1
        except StoreError as e:
            refused.append(str(e))
    assert set(refused) == {"the store cannot be written: the disk is full; make room, work goes on by itself"}
    with pytest.raises(StoreError, match="full"):
        await store.records.put([Record(kind="note", scope=RUN, key="k", body=bytes(MIB))])

    assert len(await store.attempts(RUN)) == kept
    assert [run.id for run in await store.runs()] == [RUN]
    assert await store.tasks(RUN) == [("t-1", b"body")]
    assert (await store.balance("task:t-1")).settled == Amount()
    assert await store.problems() == []

    disk.clear()
    for i in range(kept, kept + 20):
        await store.settle(attempt(f"a-{i}", reason="r" * 20_000), RUN, Amount())
    await store.finish(RUN, result("t-1"))
    await store.close()
    again = await SqliteStore.open(disk.folder / "store.db")
    assert len(await again.attempts(RUN)) == kept + 20
    assert await again.problems() == []
    await again.close()
