"""The JSON files that a specialist is made of: examples (one a line) and the output schema."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from protocols.packs import Example
from swarm.config.problems import Problem
from swarm.config.source import Unreadable, decode, read_bytes

MOST_EXAMPLE_BYTES = 32 * 1024 * 1024
MOST_LINES_REPORTED = 10


@dataclass(frozen=True, slots=True)
class ExampleFile:
    """Examples with the line each stands on, and what is wrong with the other lines."""

    examples: tuple[Example, ...]
    lines: tuple[int, ...]
    problems: tuple[Problem, ...]


def read_examples(path: Path, shown: str) -> ExampleFile:
    """Examples from a .jsonl file, blank lines passed over. Raises `Unreadable` when it is no text."""
    text = decode(read_bytes(path, shown, MOST_EXAMPLE_BYTES), shown)
    examples: list[Example] = []
    lines: list[int] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or len(problems) >= MOST_LINES_REPORTED:
            continue
        found = _example(line)
        if isinstance(found, str):
            problems.append(Problem(number, 1, found, file=shown))
        else:
            examples.append(found)
            lines.append(number)
    return ExampleFile(tuple(examples), tuple(lines), tuple(problems))


def read_schema(path: Path, shown: str) -> dict[str, Any]:
    """A JSON Schema from a file. Raises `Unreadable` when it is no JSON object."""
    text = decode(read_bytes(path, shown), shown)
    try:
        value = _loads(text)
    except json.JSONDecodeError as e:
        raise Unreadable(Problem(e.lineno, e.colno, f"is not valid JSON: {e.msg}", file=shown)) from e
    except (ValueError, RecursionError) as e:
        raise Unreadable(Problem(1, 1, f"is not valid JSON: {_reason(e)}", file=shown)) from e
    if not isinstance(value, dict):
        raise Unreadable(Problem(1, 1, "a JSON Schema is an object", file=shown))
    return value


def _example(line: str) -> Example | str:
    try:
        value = _loads(line)
    except (ValueError, RecursionError) as e:
        return f"is not valid JSON: {_reason(e)}"
    match value:
        case {"input": dict(given), "output": dict(output)} if len(value) == 2:
            return Example(given, output)
        case _:
            return 'an example is {"input": {…}, "output": {…}} and nothing else'


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _reason(e: Exception) -> str:
    if isinstance(e, RecursionError):
        return "nested too deep"
    return f"{e.msg} at column {e.colno}" if isinstance(e, json.JSONDecodeError) else str(e)
