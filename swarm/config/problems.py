"""How a problem in a file is found, placed and said: one line, `file:line:column: key.path: what; remedy`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from swarm.errors import SwarmFileError, quote

KeyPath = tuple[str | int, ...]

MOST_PROBLEMS = 100  # lines in one error; more help nobody
MOST_CHARACTERS = 800  # of what is said about one; names in a hostile file may be long
MOST_COMPARED = 200  # names looked at for a suggestion, so that a hostile file cannot make this slow
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_ALSO_CALLED = {
    "cost": "usd",
    "dollars": "usd",
    "money": "usd",
    "price": "usd",
    "time": "seconds",
    "minutes": "seconds",
    "ms": "seconds",
    "timeout_s": "timeout",
    "url": "base_url",
    "lora": "adapter",
    "key": "api_key",
    "prompt": "instructions",
    "threshold": "accept_at",
    "ram": "memory",
    "threads": "cpus",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem that knows its key, not yet its line. `on_key` points at the key itself, not at its value."""

    path: KeyPath
    text: str
    on_key: bool = False

    def under(self, *prefix: str | int) -> Finding:
        """The same finding with its path below `prefix`."""
        return Finding((*prefix, *self.path), self.text, self.on_key)


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """A problem with its place; sorts by line and column (both from 1; 0 when the file has no lines to name)."""

    line: int
    column: int
    text: str
    path: KeyPath = ()
    file: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        text = _cut(self.text, MOST_CHARACTERS)
        return (
            f"{place}: {_cut(show_path(self.path), MOST_CHARACTERS // 2)}: {text}" if self.path else f"{place}: {text}"
        )


def error(problems: Iterable[Problem]) -> SwarmFileError:
    """One error with a line for each problem, in the order of the file, cut at `MOST_PROBLEMS`."""
    ordered = sorted(set(problems), key=lambda p: (p.line, p.column, show_path(p.path), p.text))
    lines = [str(problem) for problem in ordered[:MOST_PROBLEMS]]
    if len(ordered) > MOST_PROBLEMS:
        lines.append(f"{ordered[0].file}: and {len(ordered) - MOST_PROBLEMS} more problems")
    return SwarmFileError(tuple(lines))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` when one of `known` is close to `word`, else the list of what there is (or nothing)."""
    names = sorted(islice(known, MOST_COMPARED))
    alias = _ALSO_CALLED.get(word)
    close = [alias] if alias in names else difflib.get_close_matches(word[:64], names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {quote(str(close[0]))}?"
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"; there is {shown}" if names else ""


def show(value: Any) -> str:
    """What a value is, in words a person uses: `the text 'abc'`, `the number 5`, `a list`."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {quote(value)}"
        case dict():
            return "a mapping"
        case _:
            return "a list"


def show_path(path: KeyPath) -> str:
    """`steps.intent.tiers[1]`; a key that is no plain word stands in quotes."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            shown += ("." if shown else "") + (part if _WORD.fullmatch(part) and len(part) <= 60 else quote(part))
    return shown
