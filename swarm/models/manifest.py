"""`manifest.json`: what lies in a model's folder, as it was when it was pulled."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from swarm.errors import ModelDamaged
from swarm.models.files import write_atomic

FILE_NAME = "manifest.json"
_MOST_BYTES = 1024 * 1024


class FileRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A verified file. `size` and `mtime_ns` tell cheaply whether it has been touched since it was hashed.

    `source` says where it came from; `made_from` is the SHA-256 of the file that it was
    re-quantized from, `format` what it was re-quantized to.
    """

    name: str
    role: Literal["weights", "tokenizer"]
    size: int
    mtime_ns: int
    sha256: str
    source: str
    pulled_at: str  # UTC, ISO 8601
    made_from: str | None = None
    format: str | None = None

    def touched(self, mtime_ns: int) -> FileRecord:
        """The same content, seen with another modification time."""
        return msgspec.structs.replace(self, mtime_ns=mtime_ns)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All files of one model. The order is that of the registry, re-quantized ones last."""

    model: str
    files: tuple[FileRecord, ...] = ()
    schema: Literal["manifest/v1"] = "manifest/v1"

    def get(self, name: str) -> FileRecord | None:
        """The record of the file with this name."""
        return next((record for record in self.files if record.name == name), None)

    def having(self, record: FileRecord) -> Manifest:
        """This manifest with `record` in the place of an older one of the same name, or at the end."""
        if self.get(record.name) is None:
            return msgspec.structs.replace(self, files=(*self.files, record))
        files = tuple(record if old.name == record.name else old for old in self.files)
        return msgspec.structs.replace(self, files=files)


def read_manifest(folder: Path, model: str) -> Manifest:
    """The manifest in `folder`, an empty one when there is none.

    Raises `ModelDamaged` when the file is there but cannot be understood.
    """
    path = folder / FILE_NAME
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES)
    except FileNotFoundError:
        return Manifest(model=model)
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError) as e:
        raise ModelDamaged(f"{path} cannot be read ({e}); delete it and run `swarm models pull {model}`") from e


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest in `folder` in one step."""
    write_atomic(folder / FILE_NAME, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
