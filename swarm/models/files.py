"""Small things done to files with care: hash, copy with a limit, appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from swarm.errors import ModelDamaged, ModelError

CHUNK = 1024 * 1024
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)

Report = Callable[[int], None]  # bytes done so far, of the piece at hand


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the pull of one file is, in bytes. `total_bytes` is None while nobody knows it."""

    file: str
    done_bytes: int
    total_bytes: int | None


OnProgress = Callable[[Progress], None]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a whole file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_limited(source: IO[bytes], target: Path, limit: int | None, report: Report) -> None:
    """Write `source` to `target` and to the disk beneath. Raises `ModelDamaged` once more than `limit` bytes come."""
    done = 0
    with target.open("wb") as out:
        while chunk := source.read(CHUNK):
            done += len(chunk)
            if limit is not None and done > limit:
                raise ModelDamaged(f"more than the expected {limit:,} bytes came")
            out.write(chunk)
            report(done)
        sync(out)


def sync(file: IO[bytes]) -> None:
    """Flush `file` down to the disk, so that a rename after it never names a hole."""
    file.flush()
    os.fsync(file.fileno())


def write_atomic(path: Path, data: bytes) -> None:
    """Write a small file that is there as a whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            sync(file)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def disk_faults_named(folder: Path) -> Iterator[None]:
    """Turns a full or unwritable disk into a `ModelError` that says where and what to do."""
    try:
        yield
    except OSError as e:
        if e.errno in FULL_DISK:
            remedy = "free some space or set SWARMLET_HOME to a larger disk"
            raise ModelError(f"no room left in {folder} ({e.strerror}); {remedy}") from e
        if e.errno in _NOT_WRITABLE:
            raise ModelError(f"cannot write to {folder} ({e.strerror}); set SWARMLET_HOME to a folder of yours") from e
        raise


def joined(pieces: list[Path], target: Path) -> Path:
    """Write the pieces to `target` one after the other; returns `target`."""
    with target.open("wb") as out:
        for piece in pieces:
            with piece.open("rb") as file:
                shutil.copyfileobj(file, out, CHUNK)
        sync(out)
    return target
