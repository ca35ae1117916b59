"""JSON lines in and out. A broken line is a record like any other, with its number and what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

LONGEST = 4 * 1024 * 1024  # bytes of a line


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


class OrderedWriter:
    """Writes records in the order of their positions, whatever order they come in."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._waiting: dict[int, dict[str, Any]] = {}
        self._next = 0

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
        item = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"), parse_constant=_refused)
    except UnicodeDecodeError as e:
        return Line(number, None, f"not UTF-8 at byte {e.start + 1}")
    except (ValueError, RecursionError) as e:
        return Line(number, None, f"not JSON: {e}")
    if not isinstance(item, dict):
        return Line(number, None, f"a JSON object is wanted, not {type(item).__name__}")
    return Line(number, item)


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
