"""Decoded prefixes on disk, so that a new process need not read long prompts again.

A file holds the tokens, what llama.cpp says their sequence is (`llama_state_seq_get_data`) and a checksum of both: the
library trusts what it is given. Its folder is named after everything that the content depends on: the model's hash, the
adapter, the KV format, flash attention and the version of llama.cpp. The oldest files go when all take too much room.
"""

from __future__ import annotations

import hashlib
import os
import threading
from bisect import bisect_right, insort
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from swarm.engine.llama.seen import common, key_of

log = structlog.get_logger(__name__)

MOST_BYTES = 1 << 30  # of all saved prefixes of one model
_LARGEST = 1 << 30  # bytes of one prefix
_SUFFIX = ".prefix"
_MAGIC = b"swarmkv1"


class _Header(msgspec.Struct, frozen=True):
    tokens: bytes  # four bytes each, big-endian
    digest: bytes  # of the tokens and the state
    size: int  # bytes of the state


class SavedPrefixes:
    """The prefixes in one folder. Reading is done by the caller's thread, writing by one of its own."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._names: dict[bytes, str] = {}  # tokens -> file
        self._ordered: list[bytes] = []
        self._changing = threading.Lock()  # either of the two; the writer adds to them
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="prefixes")
        for path in sorted(folder.glob(f"*{_SUFFIX}")) if folder.is_dir() else ():
            if (header := _read_header(path)) is not None:
                self._remember(header.tokens, path.name)

    def __len__(self) -> int:
        return len(self._names)

    def longest(self, prompt: Sequence[int]) -> int:
        """Tokens of the longest saved prefix that `prompt` begins with."""
        key = key_of(prompt)
        with self._changing:
            while place := bisect_right(self._ordered, key):
                candidate = self._ordered[place - 1]
                if key.startswith(candidate):
                    return len(candidate) // 4
                # Whatever lies between shares no more with the prompt than this neighbour does.
                key = key[: common(key, candidate) // 4 * 4]
        return 0

    def read(self, prefix: Sequence[int]) -> bytes | None:
        """The state of exactly these tokens; `None`, and the file is deleted, when it is not what was written."""
        key = key_of(prefix)
        path = self._folder / self._names.get(key, "")
        try:
            data = path.read_bytes()
            header, state = _split(data)
            sound = header.tokens == key and header.digest == _digest(key, state)
        except (OSError, msgspec.DecodeError, ValueError):
            sound = False
        if sound:
            with suppress(OSError):  # the folder may be another user's
                os.utime(path)
            return state
        log.warning("prefix.damaged", file=path.name, remedy="deleted; it is decoded again")
        self._forget(key)
        return None

    def write(self, prefix: Sequence[int], state: bytes) -> None:
        """Keep `state`, in the background; it is known once its file is whole.

        A disk that is full or read-only is an event in the log, nothing more.
        """
        key = key_of(prefix)
        if key in self._names or len(state) > _LARGEST:
            return
        self._writer.submit(self._write, key, hashlib.blake2b(key, digest_size=16).hexdigest() + _SUFFIX, state)

    def close(self) -> None:
        """Wait until everything is written."""
        self._writer.shutdown()

    def _write(self, key: bytes, name: str, state: bytes) -> None:
        header = msgspec.msgpack.encode(_Header(key, _digest(key, state), len(state)))
        partial = self._folder / f".{name}.{os.getpid()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(_MAGIC + len(header).to_bytes(4, "big") + header)
                file.write(state)
            partial.replace(self._folder / name)
            self._remember(key, name)
            self._shrink()
        except OSError as error:
            log.warning("prefix.not_saved", folder=str(self._folder), cause=str(error))
            with suppress(OSError):
                partial.unlink()

    def _shrink(self) -> None:
        """Delete what was used longest ago until the rest is small enough."""
        files = [(path, path.stat()) for path in self._folder.glob(f"*{_SUFFIX}")]
        size = sum(status.st_size for _, status in files)
        for path, status in sorted(files, key=lambda file: file[1].st_mtime_ns):
            if size <= self._most_bytes:
                return
            path.unlink(missing_ok=True)
            size -= status.st_size

    def _remember(self, key: bytes, name: str) -> None:
        with self._changing:
            if key not in self._names:
                insort(self._ordered, key)
            self._names[key] = name

    def _forget(self, key: bytes) -> None:
        with self._changing:
            if (name := self._names.pop(key, None)) is None:
                return
            self._ordered.remove(key)
        with suppress(OSError):
            (self._folder / name).unlink()


def _read_header(path: Path) -> _Header | None:
    """`None` when it is no file of ours, or was cut."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC) + 4)
            if not start.startswith(_MAGIC):
                return None
            size = int.from_bytes(start[len(_MAGIC) :], "big")
            header = msgspec.msgpack.decode(file.read(min(size, 1 << 24)), type=_Header)
        return header if path.stat().st_size == len(start) + size + header.size else None
    except (OSError, msgspec.DecodeError):
        return None


def _split(data: bytes) -> tuple[_Header, bytes]:
    start = len(_MAGIC) + 4
    size = int.from_bytes(data[len(_MAGIC) : start], "big")
    return msgspec.msgpack.decode(data[start : start + size], type=_Header), data[start + size :]


def _digest(key: bytes, state: bytes) -> bytes:
    digest = hashlib.blake2b(key, digest_size=16)
    digest.update(state)
    return digest.digest()
