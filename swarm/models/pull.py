"""Bringing one model here: under its lock, file after file, then once into the format that runs best."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from swarm.errors import ModelDamaged, ModelError
from swarm.models.fetch import PARTIAL, FileFetcher, record_of
from swarm.models.files import OnProgress, Progress, disk_faults_named, sha256_of
from swarm.models.lock import exclusive
from swarm.models.manifest import FileRecord, Manifest, read_manifest, write_manifest
from swarm.models.registry import Registered
from swarm.models.spec import FileEntry
from swarm.models.wheel import TEMPORARY


class Requantize(Protocol):
    """Writes the GGUF file `src` to `dst` in another format; raises `ModelError` when it cannot."""

    def __call__(self, src: Path, dst: Path, format: str) -> None: ...


def _nobody(_: object) -> None:
    return None


@dataclass(frozen=True, slots=True)
class PullSettings:
    """`on_progress` hears how far a file is; `on_note` a sentence now and then (waiting, a slower format kept).

    `requantize` makes the registry's preferred format; without it a model stays in the format it came in.
    """

    on_progress: OnProgress = _nobody
    on_note: Callable[[str], None] = _nobody
    requantize: Requantize | None = None


def pull_into(folder: Path, model: Registered, settings: PullSettings, done: Callable[[], bool]) -> None:
    """Fill `folder` with the files of `model` and write its manifest last.

    When another process is at it, this one says so, waits, and asks `done` before doing anything itself.
    """
    with disk_faults_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        waiting = f"waiting for process {{}}, which is pulling {model.name} into {folder}"
        with exclusive(folder / ".lock", lambda pid: settings.on_note(waiting.format(pid))):
            if done():
                return
            _sweep(folder)
            _check_room(folder, model)
            manifest = _fetch_files(folder, model, settings)
            write_manifest(folder, manifest)
            if settings.requantize and model.entry.requantize:
                _requantize(folder, model, settings, settings.requantize)
            shutil.rmtree(folder / PARTIAL, ignore_errors=True)


def _fetch_files(folder: Path, model: Registered, settings: PullSettings) -> Manifest:
    fetcher = FileFetcher(folder, model.base, settings.on_progress)
    manifest = _manifest_or_new(folder, model.name)
    for entry in model.entry.files:
        record = fetcher.obtain(entry)
        old = manifest.get(record.name)
        if old is not None and old.sha256 == record.sha256:
            record = old.touched(record.mtime_ns)
        manifest = manifest.having(record)
    return manifest


def _manifest_or_new(folder: Path, name: str) -> Manifest:
    try:
        return read_manifest(folder, name)
    except ModelDamaged:
        return Manifest(model=name)


def _requantize(folder: Path, model: Registered, settings: PullSettings, requantize: Requantize) -> None:
    """Make the preferred format beside the original. A failure costs speed, not the model, so it is only noted."""
    entry = model.entry.file("weights")
    wanted = model.entry.requantize
    assert entry is not None and wanted is not None, "asked for by the schema and the caller"
    manifest = read_manifest(folder, model.name)
    original = manifest.get(entry.name)
    assert original is not None, "just written"
    source = folder / entry.name
    target = folder / requantized_name(entry.name, wanted)
    settings.on_progress(Progress(target.name, 0, None))
    try:
        requantize(source, target, wanted)
    except ModelError as e:
        settings.on_note(f"{model.name} stays in the format it came in, which is slower here: {e}")
        return
    record = record_made(target, entry, original, wanted)
    write_manifest(folder, manifest.having(record))
    settings.on_progress(Progress(target.name, record.size, record.size))


def record_made(path: Path, entry: FileEntry, original: FileRecord, format: str) -> FileRecord:
    """What the manifest says of the file at `path`, in which `original` was re-quantized to `format`."""
    record = record_of(path, entry, sha256_of(path), f"re-quantized from {original.name}")
    return msgspec.structs.replace(record, made_from=original.sha256, format=format)


def requantized_name(name: str, format: str) -> str:
    """`Model.Q4_1.gguf` in Q8_0 is `Model.Q8_0.gguf`; a name without a format in it gets one more suffix."""
    stem = Path(name).stem
    head, dot, last = stem.rpartition(".")
    had_format = bool(dot) and last.upper().startswith(("Q", "IQ", "F16", "F32", "BF16"))
    return f"{head if had_format else stem}.{format}.gguf"


def _sweep(folder: Path) -> None:
    """Drop what nothing can go on from: wheels of a killed pull, half-written files, files that `verify` set aside."""
    for wheels in folder.glob(f"{PARTIAL}/{TEMPORARY}*"):
        shutil.rmtree(wheels, ignore_errors=True)
    for stale in (*folder.glob(".*.partial"), *folder.glob("*.damaged")):
        stale.unlink(missing_ok=True)


def _check_room(folder: Path, model: Registered) -> None:
    needed = sum(entry.size or 0 for entry in model.entry.files if not (folder / entry.name).is_file())
    begun = sum(piece.stat().st_size for piece in folder.glob(f"{PARTIAL}/*") if piece.is_file())
    free = shutil.disk_usage(folder).free + begun
    if needed > free:
        raise ModelError(
            f"{model.name} needs {needed:,} bytes, {folder} has {free:,} free; "
            "free some space or set SWARMLET_HOME to a larger disk"
        )
