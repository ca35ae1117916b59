"""Safe YAML: from text to plain values, with the place of each key and value.

Values are built from the parser's events, never by its constructors, so nothing in a file can grow, recurse or run:
depth and node count are limited and aliases, anchors, tags and duplicate keys are problems. The event parser of
libyaml keeps its own stack, so deep nesting cannot crash it; only its composer can, and that is not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from swarm.config.problems import Finding, KeyPath, Problem
from swarm.config.scalars import NotFinite, Scalar, resolve
from swarm.config.source import Unreadable
from swarm.config.syntax import explain
from swarm.errors import quote

MOST_DEPTH = 32
MOST_NODES = 20_000

PARSER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the file; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Tree:
    """A document as plain dicts, lists and scalars. `marks` gives (key, value) places; `problems` what was ignored."""

    file: str
    value: Any
    marks: Mapping[KeyPath, tuple[Mark, Mark]]
    problems: tuple[Problem, ...]

    @property
    def flawed(self) -> frozenset[KeyPath]:
        """Where a value was left out, so that nobody complains about it twice."""
        return frozenset(p.path for p in self.problems)

    def at(self, finding: Finding) -> Problem:
        """The finding with its place: that of its key or value, else of the nearest key above."""
        path, on_key = finding.path, finding.on_key
        while path and path not in self.marks:
            path, on_key = path[:-1], True
        key, value = self.marks.get(path, (Mark(1, 1), Mark(1, 1)))
        mark = key if on_key else value
        return Problem(mark.line, mark.column, finding.text, finding.path, self.file)


def parse(text: str, file: str, parser: type = PARSER) -> Tree:
    """The one document in `text`. Raises `Unreadable` when there is no tree to speak of."""
    builder = _Builder(text, file, parser)
    try:
        value = builder.document()
    except (yaml.YAMLError, ValueError, OverflowError) as e:
        raise Unreadable(explain(e, text, file)) from e
    return Tree(file, value, builder.marks, tuple(builder.problems))


class _Builder:
    def __init__(self, text: str, file: str, parser: type) -> None:
        self._events = yaml.parse(text, Loader=parser)
        self._file = file
        self._nodes = 0
        self.marks: dict[KeyPath, tuple[Mark, Mark]] = {}
        self.problems: list[Problem] = []

    def document(self) -> Any:
        next(self._events)  # the stream's start
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            raise Unreadable(Problem(1, 1, "the file is empty; see configs/minimal.yaml", file=self._file))
        value = self._node(next(self._events), (), None)
        next(self._events)  # the document's end
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            self._problem(event, (), "a second document starts here; one file holds one")
        return value

    def _node(self, event: Any, path: KeyPath, key: Mark | None) -> Any:
        here = _mark(event)
        self.marks[path] = (key or here, here)
        self._count(event, len(path), path)
        if isinstance(event, yaml.AliasEvent):
            self._problem(event, path, f"aliases are not allowed ({quote(f'*{event.anchor}')}); write the value out")
            return None
        self._plain_node(event, path)
        match event:
            case yaml.ScalarEvent():
                return self._scalar(event, path)
            case yaml.SequenceStartEvent():
                return self._list(path)
            case _:
                return self._mapping(path)

    def _scalar(self, event: yaml.ScalarEvent, path: KeyPath) -> Scalar:
        if not event.implicit[0]:
            if any("\ud800" <= char <= "\udfff" for char in event.value):
                self._problem(event, path, "half of a surrogate pair is no character; write the character itself")
                return ""
            return event.value
        try:
            return resolve(event.value)
        except NotFinite:
            self._problem(event, path, f"{quote(event.value)} is no number that can be used; quote it if it is text")
            return None

    def _list(self, path: KeyPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, (*path, len(items)), None))
        return items

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, path)
            if key is None:
                self._skip(next(self._events), path)
            elif key in entries:
                first = self.marks[(*path, key)][0].line
                self._problem(event, (*path, key), f"is there twice; the first is on line {first}")
                self._skip(next(self._events), path)
            else:
                entries[key] = None
                entries[key] = self._node(next(self._events), (*path, key), _mark(event))
        return entries

    def _key(self, event: Any, path: KeyPath) -> str | None:
        """The text of a key; `None` (with a problem) for anything that cannot be one."""
        if not isinstance(event, yaml.ScalarEvent):
            self._problem(event, path, "a key must be plain text")
            if not isinstance(event, yaml.AliasEvent):
                self._skip(event, path)
            return None
        self._count(event, len(path), path)
        self._plain_node(event, path)
        if not event.value.strip() or any("\ud800" <= char <= "\udfff" for char in event.value):
            self._problem(event, path, "a key is empty; name it")
            return None
        return str(event.value)

    def _skip(self, event: Any, path: KeyPath) -> None:
        depth = 0
        while True:
            self._count(event, depth, path)
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth == 0:
                return
            event = next(self._events)

    def _count(self, event: Any, depth: int, path: KeyPath) -> None:
        self._nodes += 1
        if depth > MOST_DEPTH:
            raise Unreadable(self._placed(event, (), f"nested deeper than {MOST_DEPTH} levels; make it flatter"))
        if self._nodes > MOST_NODES:
            text = f"more than {MOST_NODES:,} keys and values; move examples into a .jsonl file"
            raise Unreadable(self._placed(event, (), text))

    def _plain_node(self, event: Any, path: KeyPath) -> None:
        if event.anchor is not None:
            self._problem(event, path, f"anchors are not allowed ({quote('&' + event.anchor)}); delete it")
        if event.tag is not None:
            self._problem(event, path, f"tags are not allowed ({_tag(event.tag)}); delete it")

    def _problem(self, event: Any, path: KeyPath, text: str) -> None:
        self.problems.append(self._placed(event, path, text))

    def _placed(self, event: Any, path: KeyPath, text: str) -> Problem:
        mark = _mark(event)
        return Problem(mark.line, mark.column, text, path, self._file)


def _tag(tag: str) -> str:
    return quote(tag.replace("tag:yaml.org,2002:", "!!"))


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)
