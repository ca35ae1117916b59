"""The whole description in a GGUF file, read without native code, so that damage is named before llama.cpp meets it.

The format is that of ggml's `docs/gguf.md`: header, metadata, descriptions of the tensors, padding, the tensors' data.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from swarm.errors import ModelDamaged, ModelError, ModelNotFound
from swarm.models.gguf import HEADER_BYTES, read_header

_CHUNK = 1 << 20  # bytes read at a time
_LONGEST_KEY = 65_535  # bytes; the format's limit
_LONGEST_NAME = 63  # bytes of a tensor's name; ggml's limit
_MOST_DIMENSIONS = 4
_MOST_ALIGNMENT = 1 << 20
_STRING, _ARRAY = 8, 9
_VALUE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of each scalar type
_UINT32 = 4
# ggml.h, enum ggml_type: elements in a block and its bytes. A type that is not here is left to llama.cpp.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip
_MOST_TYPE = 255

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor's description. `shape` is as in the file: the first number is that of elements in a row."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int  # bytes after the start of the data


@dataclass(frozen=True, slots=True)
class GgufContents:
    """What a sound file says it holds. `data_start`: bytes before the first tensor's data.

    `kind` is its `general.type`: `model` (also when it says nothing), `adapter`, or another word.
    """

    architecture: str
    kind: str
    tensors: tuple[GgufTensor, ...]
    data_start: int


def read_contents(path: Path) -> GgufContents:
    """Read and check everything but the weights: for 100,000 tokens of vocabulary about 30 ms.

    Raises `ModelNotFound` when there is no such file, `ModelError` when it cannot be read (a folder, no permission),
    `ModelDamaged` when counts, types, lengths or places cannot be right. A flipped bit in a weight only a hash finds.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ModelError(f"{path} is no file; name the GGUF file itself")
        header = read_header(path)
        with path.open("rb") as file:
            return _Walk(path, file).contents(header.keys, header.tensors)
    except FileNotFoundError:
        raise ModelNotFound(f"model file {path} is not on this machine; pull it with `swarm models pull`") from None
    except (OSError, ValueError) as e:  # ValueError: a null character in the path
        raise ModelError(f"model file {path} cannot be read ({e}); check its permissions and its disk") from e


class _Walk:
    """Goes through a file from its header on. Every length is compared with the file's size before it is believed."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._data = b""  # what has been read and not yet left behind
        self._start = 0  # where in the file it begins
        self._at = HEADER_BYTES  # where in the file the walk is
        self._alignment = 32
        self._texts = {"general.architecture": "", "general.type": "model"}  # those that are of interest

    def contents(self, n_keys: int, n_tensors: int) -> GgufContents:
        keys: set[str] = set()
        for number in range(n_keys):
            key = self._text(_LONGEST_KEY, f"metadata key {number + 1} of {n_keys}")
            if key in keys:
                raise self._damage(f"metadata key {key!r} is there twice")
            keys.add(key)
            self._value(key)
        architecture, general_type = self._texts.values()
        if not architecture:
            raise self._damage("general.architecture is missing")
        tensors: dict[str, GgufTensor] = {}
        for number in range(n_tensors):
            tensor = self._tensor(f"tensor {number + 1} of {n_tensors}")
            if tensor.name in tensors:
                raise self._damage(f"tensor {tensor.name!r} is there twice")
            tensors[tensor.name] = tensor
        start = -(-self._at // self._alignment) * self._alignment
        for tensor in tensors.values():
            self._placed(tensor, start)
        return GgufContents(architecture, general_type, tuple(tensors.values()), start)

    def _value(self, key: str) -> None:
        kind = self._u32()
        if key in self._texts:
            if kind != _STRING:
                raise self._damage(f"{key} is no text")
            self._texts[key] = self._text(_LONGEST_NAME, key)
        elif key == "general.alignment":
            self._align(kind)
        elif kind == _ARRAY:
            self._array(key)
        elif kind == _STRING:
            self._skip(self._u64(), key)
        elif kind in _VALUE_BYTES:
            self._skip(_VALUE_BYTES[kind], key)
        else:
            raise self._damage(f"{key} has a value of type {kind}, which does not exist")

    def _align(self, kind: int) -> None:
        self._alignment = self._u32() if kind == _UINT32 else 0
        if not 0 < self._alignment <= _MOST_ALIGNMENT or self._alignment & (self._alignment - 1):
            raise self._damage(f"general.alignment is {self._alignment}, not a power of two")

    def _array(self, key: str) -> None:
        kind, count = self._u32(), self._u64()
        if kind in _VALUE_BYTES:
            self._skip(count * _VALUE_BYTES[kind], key)
        elif kind == _STRING:
            self._fits(count * _U64.size, key)
            self._skip_texts(count, key)
        else:
            raise self._damage(f"{key} is an array of type {kind}, which cannot be")

    def _skip_texts(self, count: int, key: str) -> None:
        for _ in range(count):
            if self._at + _U64.size > self._start + len(self._data):
                self._load(_U64.size, key)
            (length,) = _U64.unpack_from(self._data, self._at - self._start)
            self._at += _U64.size + length
        if self._at > self._size:
            self._fits(0, key)

    def _tensor(self, where: str) -> GgufTensor:
        name = self._text(_LONGEST_NAME, where)
        n_dimensions = self._u32()
        if not 0 < n_dimensions <= _MOST_DIMENSIONS:
            raise self._damage(f"tensor {name!r} has {n_dimensions} dimensions; 1 to {_MOST_DIMENSIONS} are possible")
        shape = tuple(self._u64() for _ in range(n_dimensions))
        return GgufTensor(name, shape, self._u32(), self._u64())

    def _placed(self, tensor: GgufTensor, start: int) -> None:
        """Checks that the tensor's data lies inside the file."""
        if tensor.type > _MOST_TYPE:
            raise self._damage(f"tensor {tensor.name!r} is of type {tensor.type}, which does not exist")
        row, *others = tensor.shape
        block, n_bytes = _BLOCKS.get(tensor.type, (1, 0))
        if not all(tensor.shape) or row % block:
            raise self._damage(f"tensor {tensor.name!r} of type {tensor.type} cannot have the shape {tensor.shape}")
        size = row // block * n_bytes
        for other in others:
            size *= other
        if tensor.offset % self._alignment or start + tensor.offset + size > self._size:
            raise self._damage(
                f"the data of tensor {tensor.name!r} would be bytes {start + tensor.offset:,} to "
                f"{start + tensor.offset + size:,}, and the file has {self._size:,}"
            )

    def _text(self, longest: int, where: str) -> str:
        length = self._u64()
        if not 0 < length <= longest:
            raise self._damage(f"{where} has a name of {length:,} bytes; 1 to {longest:,} are possible")
        self._load(length, where)
        begin = self._at - self._start
        self._at += length
        try:
            return self._data[begin : begin + length].decode()
        except UnicodeDecodeError:
            raise self._damage(f"{where} has a name that is not UTF-8") from None

    def _u32(self) -> int:
        return self._number(_U32)

    def _u64(self) -> int:
        return self._number(_U64)

    def _number(self, form: struct.Struct) -> int:
        self._load(form.size, "the description")
        (number,) = form.unpack_from(self._data, self._at - self._start)
        self._at += form.size
        return int(number)

    def _skip(self, n_bytes: int, where: str) -> None:
        self._fits(n_bytes, where)
        self._at += n_bytes

    def _fits(self, n_bytes: int, where: str) -> None:
        if self._at + n_bytes > self._size:
            raise self._damage(f"{where} would end at byte {self._at + n_bytes:,}, and the file has {self._size:,}")

    def _load(self, n_bytes: int, where: str) -> None:
        """Have the next `n_bytes` in memory."""
        if self._at + n_bytes <= self._start + len(self._data):
            return
        self._fits(n_bytes, where)
        self._file.seek(self._at)
        self._start, self._data = self._at, self._file.read(max(n_bytes, _CHUNK))
        if len(self._data) < n_bytes:
            raise self._damage(f"it ended at byte {self._at + len(self._data):,} while it was read")

    def _damage(self, problem: str) -> ModelDamaged:
        return ModelDamaged(f"model file {self._path} is damaged: {problem}; delete it and pull it again")
