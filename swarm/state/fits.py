"""What was learnt from a pack's examples, kept by the hash of everything it was learnt from."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocols.control import Calibration

_FORMAT = 6  # raised when a fit would come out differently from the same inputs


class FitCache:
    """A folder of small files; any number of processes may use it, and it may be deleted at any time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def key(*parts: str) -> str:
        """One name for everything that a fit depends on."""
        return hashlib.sha256("\n".join((str(_FORMAT), *parts)).encode()).hexdigest()[:32]

    def arrays(self, key: str) -> dict[str, NDArray[np.float32]] | None:
        try:
            with np.load(self._folder / f"{key}.npz", allow_pickle=False) as kept:
                return {name: kept[name] for name in kept.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None  # missing or damaged: it is made again

    def keep_arrays(self, key: str, arrays: dict[str, NDArray[np.float32]]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        self._write(f"{key}.npz", buffer.getvalue())

    def calibration(self, key: str) -> tuple[Calibration | None] | None:
        """A kept calibration in a tuple of one (it may be None: nothing could be learnt), or None when none is kept."""
        try:
            data = (self._folder / f"{key}.json").read_bytes()
            return (msgspec.json.decode(data, type=Calibration | None),)
        except (OSError, msgspec.DecodeError):
            return None

    def keep_calibration(self, key: str, calibration: Calibration | None) -> None:
        self._write(f"{key}.json", msgspec.json.encode(calibration))

    def _write(self, name: str, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._folder)
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        os.replace(temporary, self._folder / name)
