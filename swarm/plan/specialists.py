"""From a specialist in a swarm file to a pack: opened from the catalogue with overrides, or made of its own parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from protocols.packs import Example, Pack
from swarm.catalogue import Catalogue, lines, parts
from swarm.config import SwarmFile, datafiles, paths, source
from swarm.config.checks import FROM_PACK
from swarm.config.packs import check_pack, default_schema
from swarm.config.problems import Finding, KeyPath, Problem, show_path
from swarm.config.specialist import Specialist
from swarm.config.tools import fault
from swarm.errors import PackError, quote

T = TypeVar("T")


@dataclass(slots=True)
class PackMaker:
    """Makes the pack of one specialist and collects what is wrong with it."""

    file: SwarmFile
    name: str
    spec: Specialist
    catalogue: Catalogue
    problems: list[Problem] = field(default_factory=list)
    example_places: list[tuple[KeyPath, str]] = field(default_factory=list)  # key path, and "file:line: " if in a file

    def make(self) -> Pack | None:
        """The pack, or `None` when a part of it could not be read; `problems` says which."""
        pack = self._inline() if self.spec.pack is None else self._from_pack(self.spec.pack)
        if pack is None or self.problems:
            return None
        overridden = self.spec.examples is not None or self.spec.labels is not None
        if self.spec.pack is None or (overridden and not self.spec.model_fields_set & FROM_PACK):
            self.problems += [self._placed(finding) for finding in check_pack(pack)]
        return None if self.problems else pack

    def _from_pack(self, wanted: str) -> Pack | None:
        try:
            if "/" in wanted:
                pack = self.catalogue.open_folder(paths.inside(self.file.folder, wanted), wanted.removeprefix("./"))
            else:
                pack = self.catalogue.open(wanted)
        except PackError as e:
            for line in lines(e):
                self._problem(("pack",), line)
            return None
        except paths.Outside as e:
            self._problem(("pack",), str(e))
            return None
        overrides: dict[str, Any] = {
            "description": self.spec.description,
            "instructions": self.spec.instructions,
            "max_tokens": self.spec.max_tokens,
            "labels": self.spec.labels,
            "examples": self._examples(pack.input) if self.spec.examples is not None else None,
        }
        if self.spec.labels is not None and pack.kind == "classify":
            overrides["output_schema"] = default_schema("classify", self.spec.labels)
        return msgspec.structs.replace(pack, **{k: v for k, v in overrides.items() if v is not None})

    def _inline(self) -> Pack | None:
        spec = self.spec
        if spec.kind is None:
            return None  # config has said so
        tools = self._tools()
        return Pack(
            name=self.name,
            kind=spec.kind,
            instructions=spec.instructions or "",
            output_schema=self._schema() or default_schema(spec.kind, spec.labels or {}),
            examples=self._examples(spec.input or ("text",)) or (),
            tools=tools[0] if tools else None,
            tools_sha256=tools[1] if tools else None,
            **parts(spec),
        )

    def _schema(self) -> dict[str, Any] | None:
        schema = self.spec.output_schema
        if not isinstance(schema, str):
            return schema
        return self._read("output_schema", schema, lambda: datafiles.read_schema(self.file.folder / schema, schema))

    def _tools(self) -> tuple[str, str] | None:
        tools = self.spec.tools
        if tools is None:
            return None
        path = self.file.folder / tools
        data = self._read("tools", tools, lambda: source.read_bytes(path, tools))
        if data is None:
            return None
        if why := fault(data):
            self._problem(("tools",), f"{tools} {why}")
        return str(path.resolve()), hashlib.sha256(data).hexdigest()

    def _examples(self, inputs: tuple[str, ...]) -> tuple[Example, ...] | None:
        match self.spec.examples:
            case None:
                return None
            case str(path):
                return self._example_file(path)
            case dict(by_label):
                placed = [(label, i, text) for label, texts in by_label.items() for i, text in enumerate(texts)]
                self.example_places = [(("examples", label, i), "") for label, i, _ in placed]
                return tuple(Example({inputs[0]: text}, {"label": label}) for label, _, text in placed)
            case listed:
                self.example_places = [(("examples", i), "") for i in range(len(listed))]
                return tuple(Example(example.input, example.output) for example in listed)

    def _example_file(self, path: str) -> tuple[Example, ...] | None:
        found = self._read("examples", path, lambda: datafiles.read_examples(self.file.folder / path, path))
        if found is None:
            return None
        for problem in found.problems:
            self._problem(("examples",), str(problem))
        self.example_places = [(("examples",), f"{path}:{line}: ") for line in found.lines]
        return found.examples

    def _read(self, key: str, path: str, read: Callable[[], T]) -> T | None:
        try:
            paths.inside(self.file.folder, path)
            return read()
        except paths.Outside as e:
            self._problem((key,), str(e))
        except source.Unreadable as e:
            self._problem((key,), str(e.problem))
        return None

    def _placed(self, finding: Finding) -> Problem:
        path, text = finding.path, finding.text
        if len(path) > 1 and path[0] == "examples" and self.example_places:
            place, prefix = self.example_places[int(path[1])]
            path, text = place, prefix + text
        elif self.spec.pack is not None and path[0] not in self.spec.model_fields_set:
            text = f"does not fit pack {quote(self.spec.pack)}: {show_path(path)}: {text}"
            path = ("labels",) if self.spec.labels is not None else ("examples",)
        return self.file.at(("specialists", self.name, *path), text, finding.on_key)

    def _problem(self, path: KeyPath, text: str) -> None:
        self.problems.append(self.file.at(("specialists", self.name, *path), text))
