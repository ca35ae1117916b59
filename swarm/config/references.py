"""References in a step's input: `${intent.label}` alone is a value, inside a text it is put into the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

INPUT = "input"  # the source that means the task's own input
_PLACE = re.compile(r"\$\$\{|\$\{([^{}]*)(\})?")
_NAME = r"[A-Za-z_][A-Za-z0-9_-]*"
_REFERENCE = re.compile(rf"{_NAME}(\.{_NAME})*")


class BadReference(ValueError):
    """Text with a `${` that is no reference; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A value of the task's input (`source` is `input`) or of a step's output. An empty `path` means all of it."""

    source: str
    path: tuple[str, ...]

    def __str__(self) -> str:
        return "${" + ".".join((self.source, *self.path)) + "}"


@dataclass(frozen=True, slots=True)
class Text:
    """Text with references in it; their values are joined in as text, JSON for lists and mappings."""

    parts: tuple[str | Ref, ...]


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as it stands in the file."""

    value: Any


Binding = Ref | Text | Literal


def parse_binding(value: Any) -> Binding:
    """What a value of a step's `input` means. `$${` is a plain `${`. Raises `BadReference`."""
    if not isinstance(value, str):
        if any("${" in text for text in _texts(value)):
            raise BadReference("a reference inside a list or mapping is not looked up; give it an input of its own")
        return Literal(value)
    parts = _split(value)
    if len(parts) == 1 and isinstance(parts[0], Ref):
        return parts[0]
    if any(isinstance(part, Ref) for part in parts):
        return Text(tuple(parts))
    return Literal("".join(str(part) for part in parts))


def references(binding: Binding) -> tuple[Ref, ...]:
    """The references a binding needs, in order."""
    match binding:
        case Ref():
            return (binding,)
        case Text(parts):
            return tuple(part for part in parts if isinstance(part, Ref))
        case Literal():
            return ()


def _split(text: str) -> list[str | Ref]:
    parts: list[str | Ref] = []
    plain, end = "", 0
    for place in _PLACE.finditer(text):
        plain += text[end : place.start()]
        end = place.end()
        if place.group() == "$${":
            plain += "${"
            continue
        parts += [plain] if plain else []
        parts.append(_reference(place))
        plain = ""
    plain += text[end:]
    return [*parts, plain] if plain or not parts else parts


def _reference(place: re.Match[str]) -> Ref:
    inside, closed = place.group(1), place.group(2)
    if not closed:
        raise BadReference("a '${' is never closed; write ${step.field}, or $${ for a plain '${'")
    if inside.startswith("env:") or inside.split(".")[0] == "env":
        raise BadReference("the environment cannot be a step's input: secrets stay out of prompts")
    if not _REFERENCE.fullmatch(inside):
        raise BadReference("a reference is ${input.name}, ${step} or ${step.field}; write $${ for a plain '${'")
    source, *path = inside.split(".")
    return Ref(source, tuple(path))


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for item in value.values():
                yield from _texts(item)
        case list():
            for item in value:
                yield from _texts(item)
