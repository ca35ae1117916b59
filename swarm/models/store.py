"""The folder on this machine that holds the models, one folder each: `$SWARMLET_HOME/models/NAME/FILE`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swarm.errors import ModelDamaged, ModelError, ModelNotFound
from swarm.models.files import disk_faults_named, sha256_of
from swarm.models.lock import exclusive
from swarm.models.manifest import FileRecord, Manifest, read_manifest, write_manifest
from swarm.models.pull import PullSettings, pull_into, record_made, requantized_name
from swarm.models.registry import Registered, Registry, shipped_registry
from swarm.models.spec import Kind

State = Literal["here", "missing", "damaged"]

PUBLISHED = "published"  # the format in which a model came


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What an engine needs to open a model. `weights` is the file that runs best here, `sha256` its hash;
    `tokenizer` and `chat_format` are None for the kinds that have none; `context` counts tokens."""

    name: str
    kind: Kind
    weights: Path
    sha256: str
    tokenizer: Path | None
    chat_format: str | None
    context: int


def default_home() -> Path:
    """`$SWARMLET_HOME`, or `~/.cache/swarmlet`."""
    home = os.environ.get("SWARMLET_HOME")
    return Path(home).expanduser() if home else Path.home() / ".cache" / "swarmlet"


class ModelStore:
    """Pulls models, checks them and hands out their files. Cheap to make; any number of processes may use one home.

    `home`: the folder above `models/` (default `default_home()`). `registry`: default the shipped one.
    """

    def __init__(self, home: Path | None = None, registry: Registry | None = None) -> None:
        self.root = (home or default_home()) / "models"
        self.registry = registry or Registry.shipped()

    def path(self, name: str, format: str | None = None) -> ModelFiles:
        """The files of a model that is here, its weights in `format`: `published` as they came, or one of `formats`.

        Without a format it is the one that the registry prefers, as far as it was made.
        A file is taken by its size and modification time as they were when it was hashed; one whose time changed
        (a copied cache) is hashed again. Raises `ModelNotFound` when the model is not in the registry or not here,
        `ModelDamaged` when a file is not what was pulled.
        """
        model = self.registry.get(name)
        manifest = read_manifest(self._folder(name), name)
        weights = self._preferred(model, manifest) if format is None else self._made(model, manifest, format)
        tokenizer = model.entry.file("tokenizer")
        return ModelFiles(
            name=name,
            kind=model.entry.kind,
            weights=self._checked(model, weights),
            sha256=weights.sha256,
            tokenizer=self._checked(model, self._original(model, manifest, tokenizer.name)) if tokenizer else None,
            chat_format=model.entry.chat_format,
            context=model.entry.context,
        )

    def formats(self, name: str) -> frozenset[str]:
        """The formats in which the weights are here: `published`, and those made of it. Raises `ModelNotFound`."""
        model = self.registry.get(name)
        manifest = read_manifest(self._folder(name), name)
        original = self._weights(model, manifest)
        made = (record.format for record in manifest.files if record.format and record.made_from == original.sha256)
        return frozenset({PUBLISHED, *made})

    def take_in(self, name: str, made: Path, format: str) -> ModelFiles:
        """Move `made`, the published weights re-quantized to `format`, to the model's files and return them.

        `made` lies on the same file system. Raises `ModelNotFound` when the model is not here, `ModelError` when the
        folder cannot be written.
        """
        model = self.registry.get(name)
        folder = self._folder(name)
        entry = model.entry.file("weights")
        assert entry is not None, "the schema asks for weights"
        with disk_faults_named(folder), exclusive(folder / ".lock", lambda _: None):
            manifest = read_manifest(folder, name)
            original = self._weights(model, manifest)
            target = folder / requantized_name(original.name, format)
            os.replace(made, target)
            write_manifest(folder, manifest.having(record_made(target, entry, original, format)))
        return self.path(name, format)

    def folder(self, name: str) -> Path:
        """Where the model's files are. Raises `ModelNotFound` for a name that the registry does not have."""
        return self._folder(self.registry.get(name).name)

    def state(self, name: str) -> State:
        """`here` when `path` would answer, `missing` or `damaged` when it would raise."""
        try:
            self.path(name)
        except ModelNotFound:
            return "missing"
        except ModelDamaged:
            return "damaged"
        return "here"

    def pull(self, name: str, settings: PullSettings | None = None) -> ModelFiles:
        """Bring the model here, verified, and return its files; what is here already costs a few milliseconds.

        Raises `ModelNotFound`, `SourceFailed`, `ModelDamaged`, and `ModelError` when the disk is full.
        """
        settings = settings or PullSettings()
        model = self.registry.get(name)
        if not self._complete(model, settings):
            folder = self._folder(name)
            pull_into(folder, model, settings, done=lambda: self._complete(model, settings))
        return self.path(name)

    def pull_all(self, names: Iterable[str], settings: PullSettings | None = None) -> dict[str, ModelFiles]:
        """`pull` for each name, in order; a name given twice is pulled once."""
        return {name: self.pull(name, settings) for name in dict.fromkeys(names)}

    def verify(self, name: str) -> tuple[FileRecord, ...]:
        """Hash every file of a model that is here and return the manifest's records.

        A file that is not what was pulled is renamed to `FILE.damaged`, so that nothing uses it, and `ModelDamaged`
        names it. Raises `ModelNotFound` when the model is not here.
        """
        model = self.registry.get(name)
        folder = self._folder(name)
        manifest = read_manifest(folder, name)
        self._preferred(model, manifest)
        bad = [problem for record in manifest.files if (problem := _damage(folder, record))]
        if bad:
            raise ModelDamaged(f"model {name!r}: {'; '.join(bad)}; run `swarm models pull {name}`")
        self._remember(name, *manifest.files)
        return manifest.files

    def _complete(self, model: Registered, settings: PullSettings) -> bool:
        try:
            files = self.path(model.name)
        except ModelError:
            return False
        if settings.requantize is None or model.entry.requantize is None:
            return True
        record = read_manifest(self._folder(model.name), model.name).get(files.weights.name)
        return record is not None and record.format == model.entry.requantize

    def _folder(self, name: str) -> Path:
        return self.root / name

    def _preferred(self, model: Registered, manifest: Manifest) -> FileRecord:
        wanted = model.entry.requantize
        return self._derived(model, manifest, wanted) or self._weights(model, manifest)

    def _made(self, model: Registered, manifest: Manifest, format: str) -> FileRecord:
        record = self._weights(model, manifest) if format == PUBLISHED else self._derived(model, manifest, format)
        if record is None:
            raise ModelNotFound(f"model {model.name!r} is not here in {format}; run `swarm models tune {model.name}`")
        return record

    def _derived(self, model: Registered, manifest: Manifest, format: str | None) -> FileRecord | None:
        """The published weights in another format, if they were made of the file that is here now."""
        original = self._weights(model, manifest)
        for record in manifest.files:
            if record.format == format is not None and record.made_from == original.sha256:
                return record
        return None

    def _weights(self, model: Registered, manifest: Manifest) -> FileRecord:
        weights = model.entry.file("weights")
        assert weights is not None, "the schema asks for weights"
        return self._original(model, manifest, weights.name)

    def _original(self, model: Registered, manifest: Manifest, file: str) -> FileRecord:
        record = manifest.get(file)
        expected = next(entry.sha256 for entry in model.entry.files if entry.name == file)
        if record is None or expected not in (None, record.sha256):
            raise _not_here(model)
        return record

    def _checked(self, model: Registered, record: FileRecord) -> Path:
        path = self._folder(model.name) / record.name
        try:
            stat = path.stat()
        except FileNotFoundError:
            raise _not_here(model) from None
        if stat.st_size == record.size and stat.st_mtime_ns == record.mtime_ns:
            return path
        if stat.st_size != record.size or sha256_of(path) != record.sha256:
            raise ModelDamaged(f"{path} is not the file that was pulled; run `swarm models pull {model.name}`")
        self._remember(model.name, record)
        return path

    def _remember(self, name: str, *records: FileRecord) -> None:
        """Take the present modification times of verified files into the manifest, where it can be written."""
        folder = self._folder(name)
        manifest = before = read_manifest(folder, name)
        for record in records:
            manifest = manifest.having(record.touched((folder / record.name).stat().st_mtime_ns))
        if manifest != before and os.access(folder, os.W_OK):
            write_manifest(folder, manifest)


def _damage(folder: Path, record: FileRecord) -> str | None:
    path = folder / record.name
    if not path.is_file():
        return f"{record.name} is gone"
    if (found := sha256_of(path)) == record.sha256:
        return None
    os.replace(path, path.with_name(f"{path.name}.damaged"))
    return f"{record.name} has sha256 {found}, expected {record.sha256}, and was renamed to {path.name}.damaged"


def _not_here(model: Registered) -> ModelNotFound:
    own = "" if model.base == shipped_registry().parent else f" --registry {model.base / 'models.yaml'}"
    return ModelNotFound(f"model {model.name!r} is not on this machine; run `swarm models pull {model.name}{own}`")
