"""The catalogue: finds packs, checks every file of theirs, and opens them as data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from protocols.packs import Pack, Templates
from swarm.config import datafiles, paths, source, tree
from swarm.config.packs import check_pack, default_schema
from swarm.config.problems import Finding, KeyPath, Problem, did_you_mean, show_path
from swarm.config.specialist import PackFile, PackParts
from swarm.config.tools import fault
from swarm.config.validate import validate
from swarm.config.values import IDENTIFIER
from swarm.errors import PackError, quote

AGENT, PROMPT, SCHEMA, EXAMPLES, TOOLS = "agent.yaml", "prompt.md", "output.schema.json", "examples.jsonl", "tools.py"
_NEEDED = {
    "classify": {PROMPT, SCHEMA, EXAMPLES},
    "extract": {PROMPT, SCHEMA, EXAMPLES},
    "generate": {SCHEMA},
    "tool": {SCHEMA, TOOLS},
}
_STANDS_IN = {"examples": EXAMPLES, "output_schema": SCHEMA, "tools": TOOLS}


def shipped() -> Path:
    """The folder of the packs that come with this package: its data, or `agents/` of a checkout."""
    package = Path(__file__).parent
    data = package / "data" / "agents"
    return data if data.is_dir() else package.parent / "agents"


class Catalogue:
    """Packs by name, looked for in `roots` in order. Opened packs are kept."""

    def __init__(self, roots: Sequence[Path] | None = None) -> None:
        self.roots = tuple(roots) if roots is not None else (shipped(),)
        self._opened: dict[Path, Pack] = {}

    def names(self) -> tuple[str, ...]:
        """Every pack there is, sorted."""
        found = {agent.parent.name for root in self.roots for agent in root.glob(f"*/{AGENT}")}
        return tuple(sorted(found))

    def open(self, name: str) -> Pack:
        """The pack `name`. Raises `PackError` when it is not there, or with one line for each of its problems."""
        if IDENTIFIER.fullmatch(name):
            for root in self.roots:
                if (root / name / AGENT).is_file():
                    return self.open_folder(root / name)
        raise PackError(f"no pack {quote(name)} in the catalogue{did_you_mean(name, self.names())}")

    def open_folder(self, folder: Path, shown: str | None = None) -> Pack:
        """The pack in `folder`, called `shown` in errors. Raises `PackError` like `open`."""
        key = folder.resolve()
        if key not in self._opened:
            self._opened[key] = _Folder(folder, shown or str(folder)).open()
        return self._opened[key]


@dataclass(slots=True)
class _Folder:
    """One pack being read; collects what is wrong with it."""

    folder: Path
    shown: str
    problems: list[Problem] = field(default_factory=list)
    example_lines: tuple[int, ...] = ()

    def open(self) -> Pack:
        agent, spec = self._agent()
        if spec is None:
            raise self._error()
        pack = self._assemble(spec)
        self.problems += [self._placed(agent, finding) for finding in check_pack(pack)]
        if self.problems:
            raise self._error()
        return pack

    def _agent(self) -> tuple[tree.Tree, PackFile | None]:
        name = f"{self.shown}/{AGENT}"
        try:
            text = source.decode(source.read_bytes(paths.inside(self.folder, AGENT), name), name)
            parsed = tree.parse(text, name)
        except source.Unreadable as e:
            raise PackError(str(e.problem)) from None
        except paths.Outside as e:
            raise PackError(f"{name}: {e}") from None
        found = validate(PackFile, parsed, {"schema": "pack/v1", "name": self.folder.name}, lambda path: path[:1])
        self.problems += [*parsed.problems, *(parsed.at(finding) for finding in found.findings)]
        if found.value is not None and found.value.name != self.folder.resolve().name:
            text = f"a pack has the name of its folder: {quote(self.folder.resolve().name)}"
            self.problems.append(parsed.at(Finding(("name",), text)))
        return parsed, found.value

    def _assemble(self, spec: PackFile) -> Pack:
        present = {file for file in (PROMPT, SCHEMA, EXAMPLES, TOOLS) if self._has(file, spec.kind)}
        tools = self.folder.resolve() / TOOLS if TOOLS in present else None
        if tools is not None and spec.kind == "tool" and (why := fault(tools.read_bytes())):
            self._problem(TOOLS, why)
        return Pack(
            name=spec.name,
            kind=spec.kind,
            instructions=self._text(PROMPT).strip() if PROMPT in present else "",
            output_schema=self._schema() if SCHEMA in present else default_schema(spec.kind, spec.labels or {}),
            examples=self._examples() if EXAMPLES in present else (),
            tools=str(tools) if tools else None,
            tools_sha256=hashlib.sha256(tools.read_bytes()).hexdigest() if tools else None,
            **parts(spec),
        )

    def _has(self, file: str, kind: str) -> bool:
        if not (self.folder / file).exists() and not (self.folder / file).is_symlink():
            if file in _NEEDED[kind]:
                self._problem(file, f"is missing; a pack of kind {kind} needs it")
            return False
        try:
            paths.inside(self.folder, file)
        except paths.Outside as e:
            self._problem(file, str(e))
            return False
        return True

    def _text(self, file: str) -> str:
        shown = f"{self.shown}/{file}"
        try:
            return source.decode(source.read_bytes(self.folder / file, shown), shown)
        except source.Unreadable as e:
            self.problems.append(e.problem)
            return ""

    def _schema(self) -> dict[str, Any]:
        try:
            return datafiles.read_schema(self.folder / SCHEMA, f"{self.shown}/{SCHEMA}")
        except source.Unreadable as e:
            self.problems.append(e.problem)
            return {}

    def _examples(self) -> Any:
        try:
            found = datafiles.read_examples(self.folder / EXAMPLES, f"{self.shown}/{EXAMPLES}")
        except source.Unreadable as e:
            self.problems.append(e.problem)
            return ()
        self.problems += found.problems
        self.example_lines = found.lines
        return found.examples

    def _placed(self, agent: tree.Tree, finding: Finding) -> Problem:
        """A finding in the file that holds its field."""
        file = _STANDS_IN.get(str(finding.path[0])) if finding.path else None
        if file is None:
            return agent.at(finding)
        line = self.example_lines[finding.path[1]] if _is_example(finding.path) else 1  # type: ignore[index]
        return Problem(line, 1, finding.text, (), f"{self.shown}/{file}")

    def _problem(self, file: str, text: str) -> None:
        self.problems.append(Problem(0, 0, text, (), f"{self.shown}/{file}"))

    def _error(self) -> PackError:
        ordered = sorted(set(self.problems), key=lambda p: (p.file, p.line, p.column, show_path(p.path)))
        return PackError("\n".join(str(problem) for problem in ordered))


def parts(spec: PackParts) -> dict[str, Any]:
    """The fields of a `Pack` that agent.yaml and an inline specialist write alike, without those left out."""
    values = {
        "description": spec.description,
        "input": spec.input,
        "labels": spec.labels,
        "none_label": spec.none_label,
        "patterns": spec.patterns,
        "checks": spec.checks,
        "equals": spec.equals,
        "requires": spec.requires,
        "max_tokens": spec.max_tokens,
        "effects": spec.effects,
        "idempotent": spec.idempotent,
        "templates": msgspec.convert(spec.templates.model_dump(), Templates) if spec.templates else None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _is_example(path: KeyPath) -> bool:
    return len(path) > 1 and path[0] == "examples"


def lines(e: PackError) -> Iterable[str]:
    """The problems of a pack, one a line."""
    return str(e).split("\n")
