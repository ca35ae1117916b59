"""A swarm file that has been read: its spec, where everything stands, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from swarm.config import checks, source, tree
from swarm.config.problems import Finding, KeyPath, Problem, did_you_mean, error
from swarm.config.schema import SwarmSpec
from swarm.config.validate import validate

_MOST_FINDINGS = 500  # of checks between parts, so that a hostile file cannot make suggestions slow
_PLACEHOLDERS: dict[str, Any] = {"schema": "swarm/v1", "name": "unnamed", "specialists": {}, "steps": {}}


@dataclass(frozen=True, slots=True)
class SwarmFile:
    """`spec` holds every sound part; `broken` the key paths of those left out; `problems` why.

    `config.load` gives only files without problems; `config.read` gives all, so that later checks can add theirs.
    """

    path: Path
    spec: SwarmSpec
    tree: tree.Tree
    broken: frozenset[KeyPath]
    problems: tuple[Problem, ...]

    @property
    def folder(self) -> Path:
        """Where the file's own paths start."""
        return self.path.parent

    def names(self, section: str) -> tuple[str, ...]:
        """The keys of a section (`models`, `specialists`, `steps`), those with problems too."""
        return tuple(checks.Raw(self.tree.value).mapping(section))

    def at(self, path: KeyPath, text: str, on_key: bool = False) -> Problem:
        """A problem at the place of a value (or its key); at the nearest key above where there is none."""
        return self.tree.at(Finding(path, text, on_key))

    def problem(self, key_path: KeyPath, text: str, did_you_mean_of: tuple[str, Iterable[str]] | None = None) -> str:
        """One line `file:line:column: key.path: text`. With `(word, known)` it ends in the word that was meant."""
        hint = did_you_mean(*did_you_mean_of) if did_you_mean_of else ""
        return str(self.at(key_path, text + hint))


def read(path: str | Path) -> SwarmFile:
    """Read and check a swarm file; its problems are in the result.

    Raises `SwarmFileError` when it is no readable YAML mapping, so that there is nothing to go on with.
    """
    path, shown = Path(path), str(path)
    try:
        parsed = tree.parse(source.decode(source.read_bytes(path, shown), shown), shown)
    except source.Unreadable as e:
        raise error([e.problem]) from None
    return read_tree(path, parsed)


def read_tree(path: Path, parsed: tree.Tree) -> SwarmFile:
    """Check what has been parsed. Raises `SwarmFileError` when nothing in it is sound."""
    found = validate(SwarmSpec, parsed, _PLACEHOLDERS, _part_of)
    findings = [*found.findings, *islice(checks.check(parsed.value), _MOST_FINDINGS)]
    problems = (*parsed.problems, *(parsed.at(finding) for finding in findings))
    if found.value is None:
        raise error(problems)
    return SwarmFile(path, found.value, parsed, found.broken, problems)


def load(path: str | Path) -> SwarmFile:
    """Read a swarm file without problems. Raises `SwarmFileError` with all of them otherwise."""
    file = read(path)
    if file.problems:
        raise error(file.problems)
    return file


def _part_of(path: KeyPath) -> KeyPath:
    """A broken entry costs its entry; a broken section that is no list of entries costs the section."""
    return path[:2] if path[:1] in (("models",), ("specialists",), ("steps",)) else path[:1]
