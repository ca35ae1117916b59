"""JSON lines in and out. A broken line is a record like any other, with its number and what is wrong."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from swarm.errors import SwarmError

LONGEST = 4 * 1024 * 1024  # bytes of a line
AHEAD = 64  # lines that are read before they are wanted
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the input: an item, or what is wrong with it."""

    number: int  # from 1
    item: dict[str, Any] | None
    error: str | None = None


def read_line(source: IO[bytes], number: int) -> Line | None:
    """The next line that is not blank, or None at the end. `number` is the number of the line to be read."""
    while raw := source.readline(LONGEST + 1):
        if len(raw) > LONGEST:
            while raw and not raw.endswith(b"\n"):
                raw = source.readline(LONGEST)
            return Line(number, None, f"longer than {LONGEST:,} bytes")
        raw = raw.removeprefix(BOM) if number == 1 else raw
        if raw.strip():
            return _parsed(raw, number)
        number += 1
    return None


def lines(source: IO[bytes]) -> Iterator[Line]:
    """Every line of `source` that is not blank."""
    number = 1
    while (line := read_line(source, number)) is not None:
        yield line
        number = line.number + 1


async def arriving(source: IO[bytes]) -> AsyncIterator[Line]:
    """Every line of `source` as it comes. Read by a thread that nobody waits for: its producer may never end."""
    loop = asyncio.get_running_loop()
    read: asyncio.Queue[Line | OSError | None] = asyncio.Queue()
    room = threading.Semaphore(AHEAD)

    def work() -> None:
        end = None
        with suppress(RuntimeError):  # the loop was closed: nobody reads on
            try:
                for line in lines(source):
                    room.acquire()
                    loop.call_soon_threadsafe(read.put_nowait, line)
            except OSError as e:
                end = e
            loop.call_soon_threadsafe(read.put_nowait, end)

    threading.Thread(target=work, name="reader", daemon=True).start()
    while (line := await read.get()) is not None:
        if isinstance(line, OSError):
            raise SwarmError(f"the input cannot be read on: {line.strerror}") from line
        room.release()
        yield line


class OrderedWriter:
    """Writes records in the order of their positions, whatever order they come in."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._waiting: dict[int, dict[str, Any]] = {}
        self._next = 0

    @property
    def waiting(self) -> int:
        """How many records wait for an earlier one."""
        return len(self._waiting)

    def put(self, position: int, record: dict[str, Any]) -> None:
        self._waiting[position] = record
        while self._next in self._waiting:
            self._write(self._waiting.pop(self._next))
            self._next += 1
        self._out.flush()

    def flush(self) -> None:
        """Write what waits for an earlier record that will not come."""
        for position in sorted(self._waiting):
            self._write(self._waiting.pop(position))
        self._out.flush()

    def _write(self, record: dict[str, Any]) -> None:
        self._out.write(json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


def _parsed(raw: bytes, number: int) -> Line:
    try:
        item = json.loads(raw.decode(), parse_constant=_refused, parse_float=_finite)
    except UnicodeDecodeError as e:
        return Line(number, None, f"not UTF-8 at byte {e.start + 1}")
    except (ValueError, RecursionError) as e:
        return Line(number, None, f"not JSON: {e}")
    if not isinstance(item, dict):
        return Line(number, None, f"a JSON object is wanted, not {type(item).__name__}")
    return Line(number, item)


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(f"{number[:20]} is too large a number")
    return value


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
