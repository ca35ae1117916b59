"""A first look at a GGUF file, cheap enough to do on every pull and open."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from swarm.errors import ModelDamaged

_HEADER = struct.Struct("<4sIQQ")
HEADER_BYTES = _HEADER.size
_MOST_TENSORS = 1_000_000
_MOST_KEYS = 100_000
# The least a tensor or a key can take: its name's length, then dimension count, one dimension, type and offset, or
# value type and a one-byte value.
_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8
_KEY_BYTES = 8 + 4 + 1


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """`version` of the format, how many `tensors` and how many metadata `keys` the file says it has."""

    version: int
    tensors: int
    keys: int


def read_header(path: Path) -> GgufHeader:
    """The header of the GGUF file at `path`; reads 24 bytes.

    Raises `ModelDamaged` when the file is foreign, of a version that llama.cpp does not read, or shorter than its own
    counts need. What comes after the header is `gguf_contents`' to check.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    size = path.stat().st_size
    if len(head) < _HEADER.size:
        raise ModelDamaged(f"{path} has {size} bytes, too few for a GGUF file; pull the model again")
    magic, version, tensors, keys = _HEADER.unpack(head)
    if magic != b"GGUF":
        raise ModelDamaged(f"{path} is no GGUF file: it starts with {magic!r}; check its source")
    if version not in (2, 3):
        raise ModelDamaged(f"{path} has GGUF version {version}; versions 2 and 3 in little-endian order can be read")
    if not 0 < tensors <= _MOST_TENSORS or not 0 < keys <= _MOST_KEYS:
        raise ModelDamaged(f"{path} says it holds {tensors:,} tensors and {keys:,} keys; no real model does")
    least = _HEADER.size + tensors * _TENSOR_BYTES + keys * _KEY_BYTES
    if size < least:
        raise ModelDamaged(f"{path} was cut: {size:,} bytes, but its header alone needs {least:,}; pull it again")
    return GgufHeader(version, tensors, keys)
