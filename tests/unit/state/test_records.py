"""Records are found by kind, scope and key, all or none of them put, and gone when their time is up: on all engines."""

from __future__ import annotations

from typing import Any

import pytest
from ledger_books import RUN, Clock

from swarm.state.base import Store
from swarm.state.records import Record, RecordExists, Records


@pytest.fixture(params=["records", "caches"])
def records(store: Store, request: pytest.FixtureRequest) -> Records:
    kept: Records = getattr(store, request.param)
    return kept


def note(key: str, body: bytes = b"body", scope: str = "-/s", kind: str = "note", **more: Any) -> Record:
    return Record(kind=kind, scope=scope, key=key, body=body, **more)


def keys(found: list[Record]) -> list[str]:
    return [record.key for record in found]


async def test_a_record_comes_back_as_it_was_put(records: Records) -> None:
    """Every field of it, whatever bytes and letters it holds; nothing is made up for another name."""
    put = note("ключ 'k' %s", bytes(range(256)), at=12.5, expires=1e10)
    await records.put([put, note("empty", b"")])
    assert await records.get("note", "-/s", "ключ 'k' %s") == put
    assert await records.get("note", "-/s", "empty") == note("empty", b"")
    for kind, scope, key in (("dead", "-/s", "empty"), ("note", "acme/s", "empty"), ("note", "-/s", "other")):
        assert await records.get(kind, scope, key) is None


async def test_the_last_of_a_name_stays(records: Records) -> None:
    """Put again, by the same call or a later one, it stands in the first one's place."""
    await records.put([note("k", b"1"), note("k", b"2")])
    assert await records.get("note", "-/s", "k") == note("k", b"2")
    await records.put([note("k", b"3", at=7.0)])
    assert await records.get("note", "-/s", "k") == note("k", b"3", at=7.0)


async def test_what_must_be_new_is_put_once(records: Records) -> None:
    """One that is there already keeps all of them out, and stays as it is."""
    await records.put([note("k", b"first")], new=True)
    with pytest.raises(RecordExists, match="record note 'k' of '-/s' is there already"):
        await records.put([note("a"), note("k", b"second"), note("z")], new=True)
    with pytest.raises(RecordExists):
        await records.put([note("b"), note("b")], new=True)
    assert await records.scan("note", "-/s") == [note("k", b"first")]


async def test_a_scan_goes_by_key_in_parts(records: Records) -> None:
    """In the order of code points, from after a key on, at most so many, of one kind and scope."""
    names = ["", "B", "a", "a0", "b", "é", "z", "\U0001f600", "\uffff"]
    await records.put([note(name) for name in names])
    await records.put([note("x", kind="dead"), note("x", scope="acme/s")])
    assert keys(await records.scan("note", "-/s")) == sorted(names)[1:]
    assert keys(await records.scan("note", "-/s", after="a", limit=3)) == ["a0", "b", "z"]
    assert await records.scan("note", "-/s", after="\U0001f600") == []


async def test_an_expired_record_is_not_there(records: Records, day: Clock) -> None:
    """Neither found nor scanned, and its name is free for a new one."""
    await records.put([note("k", b"old", expires=day.now + 5), note("stays")])
    day.now += 4.9
    assert keys(await records.scan("note", "-/s")) == ["k", "stays"]
    with pytest.raises(RecordExists):
        await records.put([note("k")], new=True)
    day.now += 0.1
    assert await records.get("note", "-/s", "k") is None
    assert keys(await records.scan("note", "-/s", limit=1)) == ["stays"]
    await records.put([note("k", b"new")], new=True)
    assert await records.get("note", "-/s", "k") == note("k", b"new")


async def test_what_has_expired_takes_no_room_for_long(records: Records, day: Clock) -> None:
    """A later put sweeps it out, so that there is nothing left to forget."""
    await records.put([note(f"k{i}", expires=day.now + 1) for i in range(5)])
    day.now += 100
    await records.put([note("new")])
    assert await records.forget("note", prefix="k") == 0


async def test_records_are_forgotten_by_scope_and_beginning(records: Records) -> None:
    """It says how many; what is named like a pattern is only a name."""
    names = ["k", "k%", "k_1", "kk"]
    await records.put([note(name, scope=scope) for name in names for scope in ("-/s", "acme/s")])
    assert await records.forget("note", "-/s", "k%") == 1
    assert await records.forget("note", "acme/s", "kk") == 1
    assert await records.forget("dead") == 0
    assert keys(await records.scan("note", "-/s")) == ["k", "k_1", "kk"]
    assert keys(await records.scan("note", "acme/s")) == ["k", "k%", "k_1"]
    assert await records.forget("note", prefix="k_") == 2
    assert await records.forget("note") == 4


async def test_records_and_caches_keep_apart(store: Store) -> None:
    """The same name in both is two records."""
    await store.records.put([note("k", b"kept")])
    await store.caches.put([note("k", b"cached")])
    assert await store.caches.forget("note") == 1
    assert await store.records.get("note", "-/s", "k") == note("k", b"kept")
    assert await store.caches.get("note", "-/s", "k") is None


async def test_nothing_to_put_is_put(records: Records) -> None:
    """An empty list is fine."""
    await records.put([])
    await records.put([], new=True)
    assert await records.scan("note", RUN) == []
