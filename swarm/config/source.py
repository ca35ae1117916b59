"""From a path to text: a regular file, not too large, UTF-8, without characters that YAML forbids."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from swarm.config.problems import Problem

MOST_BYTES = 1024 * 1024
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|\ufeff")


class Unreadable(Exception):
    """The file cannot be turned into text; `problem` says why, as one line for a person."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem


def read_bytes(path: Path, shown: str, limit: int = MOST_BYTES) -> bytes:
    """The bytes of a regular file of at most `limit` bytes; a pipe or device is never opened for reading.

    Raises `Unreadable`.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Unreadable(Problem(0, 0, "is no regular file", file=shown))
            data = file.read(limit + 1)
    except (OSError, ValueError) as e:
        reason = (e.strerror if isinstance(e, OSError) else None) or str(e)
        raise Unreadable(Problem(0, 0, f"cannot be read: {reason}", file=shown)) from e
    if len(data) > limit:
        text = f"is larger than {limit:,} bytes; move long texts and examples into files beside it"
        raise Unreadable(Problem(0, 0, text, file=shown))
    return data


def decode(data: bytes, shown: str) -> str:
    """`data` as text. Raises `Unreadable` for what is not UTF-8, a byte-order mark or a control character."""
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise Unreadable(Problem(1, 1, "starts with a byte-order mark; save it as UTF-8 without one", file=shown))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        before = data[: e.start].decode("utf-8")
        where = f"byte 0x{data[e.start]:02x} is not UTF-8; save the file as UTF-8"
        raise Unreadable(_at(before, where, shown)) from e
    found = _FORBIDDEN.search(text)
    if found:
        what = f"character U+{ord(found.group()):04X} is not allowed in YAML; delete it"
        raise Unreadable(_at(text[: found.start()], what, shown))
    return text


def _at(before: str, text: str, shown: str) -> Problem:
    return Problem(before.count("\n") + 1, len(before) - before.rfind("\n"), text, file=shown)
