"""The model registry: `models.yaml` as shipped, with a user's own laid over it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from swarm.config.problems import Finding, KeyPath, did_you_mean
from swarm.config.source import Unreadable, decode, read_bytes
from swarm.config.tree import Tree, parse
from swarm.errors import ModelError, ModelNotFound, quote
from swarm.models.source import parse_source
from swarm.models.spec import ModelEntry, Parts, RegistryFile

_MOST_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Registered:
    """A model of the registry, and the folder from which its relative `file:` sources count."""

    name: str
    entry: ModelEntry
    base: Path


class Registry:
    """Models by name. An entry of a later file replaces one of the same name as a whole."""

    def __init__(self, models: Iterable[Registered]) -> None:
        self._models = {model.name: model for model in models}

    @classmethod
    def load(cls, paths: Iterable[Path]) -> Registry:
        """Read the files in order; later ones win. Raises `ModelError` with every problem of the first bad file."""
        return cls(model for path in paths for model in _read(path))

    @classmethod
    def shipped(cls, *own: Path) -> Registry:
        """The shipped models, with the files `own` laid over them."""
        return cls.load([shipped_registry(), *own])

    def __iter__(self) -> Iterator[Registered]:
        return iter(self._models.values())

    def get(self, name: str) -> Registered:
        """The model with this name. Raises `ModelNotFound` that names the nearest or all names."""
        if (found := self._models.get(name)) is not None:
            return found
        raise ModelNotFound(f"the registry has no model {quote(name)}{did_you_mean(name, self._models)}")


def shipped_registry() -> Path:
    """The `models.yaml` that comes with this package: package data in a wheel, `configs/` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "data" / "configs" / "models.yaml"
    return packaged if packaged.is_file() else package.parent / "configs" / "models.yaml"


def _read(path: Path) -> list[Registered]:
    try:
        tree = parse(decode(read_bytes(path, str(path), _MOST_BYTES), str(path)), str(path))
    except Unreadable as e:
        raise ModelError(str(e.problem)) from e
    _stop_at(tree, [])
    try:
        file = RegistryFile.model_validate(tree.value)
    except ValidationError as e:
        _stop_at(tree, [_finding(tree, item["loc"], item["type"], item["msg"]) for item in e.errors()])
        raise
    base = path.absolute().parent
    models = [Registered(name, entry, base) for name, entry in file.models.items()]
    _stop_at(tree, [finding for model in models for finding in _bad_sources(model)])
    return models


def _stop_at(tree: Tree, findings: Iterable[Finding]) -> None:
    """Raise `ModelError` when there is any problem, with a line for each in the file's order."""
    problems = sorted({*tree.problems, *(tree.at(finding) for finding in findings)})
    if problems:
        raise ModelError("\n".join(map(str, problems)))


def _finding(tree: Tree, loc: tuple[str | int, ...], kind: str, text: str) -> Finding:
    """pydantic's place as a key path; the names of types that it puts among the keys are left out."""
    path: KeyPath = ()
    value: Any = tree.value
    for part in loc:
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        if inside:
            path, value = (*path, part), value[part]
    text = text.removeprefix("Value error, ")
    match kind:
        case "missing":
            return Finding(path, f"the key {quote(str(loc[-1]))} is missing")
        case "extra_forbidden":
            return Finding(path, "unknown key", on_key=True)
        case _:
            return Finding(path, text)


def _bad_sources(model: Registered) -> Iterator[Finding]:
    for i, file in enumerate(model.entry.files):
        for j, source in enumerate(file.sources):
            for text in [part.source for part in source.parts] if isinstance(source, Parts) else [source]:
                try:
                    parse_source(text, model.base)
                except ValueError as e:
                    yield Finding(("models", model.name, "files", i, "sources", j), str(e))
