"""JSON lines in and out: every line gets its number, and a broken one says what is wrong with it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.cli import jsonl
from swarm.cli.jsonl import Line, OrderedWriter, arriving, lines
from swarm.errors import SwarmError

BOM = b"\xef\xbb\xbf"


def read(data: bytes) -> list[Line]:
    return list(lines(io.BytesIO(data)))


# --- reading ----------------------------------------------------------------------------------------------------


def test_lines_have_their_numbers() -> None:
    """Blank lines are counted and left out; the last line may end without a newline, or with a carriage return."""
    found = read(b'\n{"a": 1}\r\n  \t\n\n{"b": "\xc3\xa4"}')
    assert found == [Line(2, {"a": 1}), Line(5, {"b": "ä"})]


@pytest.mark.parametrize("data", [b"", b"\n", b"  \n\t\n", BOM, BOM + b"\n"])
def test_an_empty_file_has_no_lines(data: bytes) -> None:
    """Nothing, blank lines, or a mark that only says how nothing is encoded."""
    assert read(data) == []


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    """Editors on some systems write one; elsewhere in the file it is a mistake like any other."""
    first, second = read(BOM + b'{"a": 1}\n' + BOM + b'{"a": 2}\n')
    assert first == Line(1, {"a": 1})
    assert (second.number, second.item) == (2, None)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (b"{", "not JSON: Expecting property name"),
        (b'{"a": 1} x', "not JSON: Extra data"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": NaN}', "not JSON: NaN is no JSON number"),
        (b'{"a": -Infinity}', "not JSON: -Infinity is no JSON number"),
        (b'{"a": 1e999}', "not JSON: 1e999 is too large a number"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 8"),
        (b"[1]", "a JSON object is wanted, not list"),
        (b"null", "a JSON object is wanted, not NoneType"),
        (b'"text"', "a JSON object is wanted, not str"),
    ],
)
def test_a_broken_line_says_what_is_wrong(line: bytes, wrong: str) -> None:
    """With its number, and the lines around it are read."""
    first, broken, last = read(b'{"a": 0}\n' + line + b'\n{"a": 2}\n')
    assert (first, last) == (Line(1, {"a": 0}), Line(3, {"a": 2}))
    assert (broken.number, broken.item) == (2, None)
    assert (broken.error or "").startswith(wrong)


def test_a_huge_line_is_skipped_without_being_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never in memory as a whole; what comes after it is read. One of exactly the limit is fine."""
    monkeypatch.setattr(jsonl, "LONGEST", 100)
    fits = b'{"a": "' + b"x" * 90 + b'"}\n'
    assert len(fits) == 100
    source = Watched(fits + b'{"a": "' + b"x" * 5000 + b'"}\n{"b": 1}\n' + b"y" * 300)
    found = list(lines(source))
    assert [line.number for line in found] == [1, 2, 3, 4]
    assert [line.error for line in found] == [None, "longer than 100 bytes", None, "longer than 100 bytes"]
    assert found[2].item == {"b": 1}
    assert source.most <= 101


class Watched(io.BytesIO):
    """Remembers the most that was read at once."""

    most = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self.most = max(self.most, len(line))
        return line


@given(st.binary(max_size=200))
def test_any_bytes_are_lines(data: bytes) -> None:
    """Nothing raises, numbers only grow, and each line is an item or an error."""
    found = read(data)
    assert all((line.item is None) != (line.error is None) for line in found)
    numbers = [line.number for line in found]
    assert numbers == sorted(set(numbers))
    assert all(1 <= number <= data.count(b"\n") + 1 for number in numbers)


# --- reading as it comes ----------------------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """What is written to the second comes out of the first."""
    out, into = os.pipe()
    with open(into, "wb", buffering=0) as writer:
        reader = open(out, "rb")  # noqa: SIM115 (a thread may still read it)
        yield reader, writer


async def test_lines_arrive_as_they_are_written(pipe: tuple[IO[bytes], IO[bytes]]) -> None:
    """A producer that takes its time does not stall the event loop, and the end ends it."""
    reader, writer = pipe
    arrived = arriving(reader)
    for n in range(3):
        waiting = asyncio.ensure_future(anext(arrived))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        writer.write(b'{"n": %d}\n' % n)
        assert await waiting == Line(n + 1, {"n": n})
    writer.close()
    assert [line async for line in arrived] == []


async def test_no_more_is_read_than_is_wanted() -> None:
    """An endless source is read a little ahead, and no further."""

    class Endless(io.BytesIO):
        taken = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            self.taken += 1
            return b"{}\n"

    source = Endless()
    arrived = arriving(source)
    for _ in range(10):
        await anext(arrived)
    await asyncio.sleep(0.05)
    assert source.taken <= 10 + jsonl.AHEAD + 1
    await _closed(arrived)


async def test_a_producer_that_never_ends_keeps_nobody(pipe: tuple[IO[bytes], IO[bytes]]) -> None:
    """Whoever stops listening is free at once: the reading thread is not waited for."""
    reader, _ = pipe
    arrived = arriving(reader)
    waiting = asyncio.ensure_future(anext(arrived))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "reader")


async def test_a_source_that_breaks_off_is_an_error() -> None:
    """What was read before it is there; then the cause."""

    class Broken(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            line = super().readline(size)
            if not line:
                raise OSError(5, "Input/output error")
            return line

    arrived = arriving(Broken(b'{"a": 1}\n'))
    assert await anext(arrived) == Line(1, {"a": 1})
    with pytest.raises(SwarmError, match="the input cannot be read on: Input/output error"):
        await anext(arrived)


async def _closed(generator: AsyncIterator[Any]) -> None:
    await generator.aclose()  # type: ignore[attr-defined]


# --- writing ----------------------------------------------------------------------------------------------------


def written(out: io.BytesIO) -> list[Any]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


@given(st.permutations(range(12)))
def test_records_are_written_in_the_order_of_their_places(order: list[int]) -> None:
    """Whatever order they come in, each as soon as those before it are there."""
    out = io.BytesIO()
    writer = OrderedWriter(out)
    come: set[int] = set()
    for place in order:
        writer.put(place, {"n": place})
        come.add(place)
        ready = next(n for n in range(13) if n not in come)
        assert written(out) == [{"n": n} for n in range(ready)]
    assert written(out) == [{"n": n} for n in range(12)]


def test_what_waits_for_a_record_that_will_not_come_is_written_at_the_end() -> None:
    """After an interruption, what was finished is not lost."""
    out = io.BytesIO()
    writer = OrderedWriter(out)
    for place in (4, 0, 2):
        writer.put(place, {"n": place})
    assert written(out) == [{"n": 0}]
    writer.flush()
    assert written(out) == [{"n": 0}, {"n": 2}, {"n": 4}]


def test_any_text_can_be_written_and_read_back() -> None:
    """Umlauts as they are; half a surrogate pair as its escape; line breaks inside a text never break the line."""
    out = io.BytesIO()
    record = {"text": "Größe\n\u2028 \ud83d", "n": 1.5}
    OrderedWriter(out).put(0, record)
    assert out.getvalue().count(b"\n") == 1
    assert "Größe".encode() in out.getvalue()
    assert json.loads(out.getvalue()) == record
