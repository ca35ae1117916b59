"""A damaged model file is a typed error with its cause, and this process lives.

A flipped bit in a weight cannot be seen without the file's hash: such a file opens and answers, if it does not crash in
its own process, and `swarm models verify` finds it.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_gguf import write_tiny_model

from swarm.engine.base import EngineSpec, Prompt, ScoreRequest, Turn
from swarm.engine.llama.process.life import Patience
from swarm.engine.llama.process.process import LlamaProcess
from swarm.errors import EngineError, ModelDamaged, ModelError, ModelNotFound
from swarm.models.gguf_contents import GgufContents, read_contents

pytestmark = pytest.mark.live

Damage = Callable[[bytearray, GgufContents], bytes]
REQUEST = ScoreRequest(Prompt((Turn("user", "Hi"),)), (" yes", " no"))
U32, U64 = struct.Struct("<I"), struct.Struct("<Q")


def cut(share: float, of: str = "file") -> Damage:
    """The file up to this share of itself, or of its description."""
    return lambda data, contents: bytes(
        data[: int(share * (contents.data_start if of == "description" else len(data)))]
    )


def flipped(seed: int, first: float, last: float, bits: int = 1) -> Damage:
    """Random bits flipped between two shares of the description; beyond 1 it is weights."""

    def damage(data: bytearray, contents: GgufContents) -> bytes:
        chance = random.Random(seed)
        for _ in range(bits):
            place = chance.randrange(int(first * contents.data_start), int(last * contents.data_start))
            data[place] ^= 1 << chance.randrange(8)
        return bytes(data)

    return damage


def put(place: int, value: bytes) -> Damage:
    """Other bytes at a place of the header."""
    return lambda data, _: bytes(data[:place] + value + data[place + len(value) :])


def after(name: str, value: bytes, skip: int = 0) -> Damage:
    """Other bytes, `skip` bytes behind the name of a key or a tensor.

    After a key come type (4 bytes) and value: of a text its length (8), of an array type (4), count (8) and elements.
    After a tensor's name come the number of dimensions (4), their sizes (8 each), type (4) and offset (8).
    """

    def damage(data: bytearray, _: GgufContents) -> bytes:
        place = data.index(U64.pack(len(name)) + name.encode()) + 8 + len(name) + skip
        data[place : place + len(value)] = value
        return bytes(data)

    return damage


def renamed(name: str, other: bytes) -> Damage:
    return lambda data, _: bytes(data).replace(name.encode(), other)


EMBEDDING, QUERY, TOKENS = "token_embd.weight", "blk.0.attn_q.weight", "tokenizer.ggml.tokens"

# What the description itself shows to be wrong: never opened, whatever llama.cpp would make of it.
SEEN: dict[str, Damage] = {
    "empty": cut(0),
    "cut in the magic": lambda data, _: bytes(data[:3]),
    "cut in the header": lambda data, _: bytes(data[:23]),
    "cut after the header": lambda data, _: bytes(data[:24]),
    **{
        f"cut at {share} of the description": cut(share, "description") for share in (0.01, 0.1, 0.3, 0.5, 0.8, 0.95, 1)
    },
    **{f"cut at {share} of the file": cut(share) for share in (0.1, 0.5, 0.99)},
    "the last byte is missing": lambda data, _: bytes(data[:-1]),
    "a zip archive": put(0, b"PK\3\4"),
    "a page of a hotel's network": lambda *_: b"<!doctype html><title>Sign in</title>" * 99,
    "zeros": lambda data, _: bytes(len(data)),
    "noise": lambda data, _: random.Random(1).randbytes(len(data)),
    "noise after the header": lambda data, _: bytes(data[:24]) + random.Random(2).randbytes(len(data) - 24),
    "version 1": put(4, U32.pack(1)),
    "version 2 thousand million": put(4, U32.pack(2_000_000_000)),
    "other byte order": put(4, struct.pack(">I", 3)),
    "no tensors": put(8, U64.pack(0)),
    "a tensor more than there are": put(8, U64.pack(22)),
    "2**63 tensors": put(8, U64.pack(1 << 63)),
    "no keys": put(16, U64.pack(0)),
    "a key less": put(16, U64.pack(22)),
    "2**63 keys": put(16, U64.pack(1 << 63)),
    "a key of 2**62 bytes": put(24, U64.pack(1 << 62)),
    "a key of no bytes": put(24, U64.pack(0)),
    "a key that is no text": renamed("general.name", b"gen\xff\xfe\xfdl.name"),
    "a key twice": renamed("tokenizer.ggml.bos_token_id", b"tokenizer.ggml.eos_token_id"),
    "a value of a type that does not exist": after("llama.block_count", U32.pack(13)),
    "a text of 2**63 bytes": after("general.name", U64.pack(1 << 63), skip=4),
    "2**61 texts": after(TOKENS, U64.pack(1 << 61), skip=8),
    "a million texts": after(TOKENS, U64.pack(1_000_000), skip=8),
    "arrays in an array": after(TOKENS, U32.pack(9), skip=4),
    "the architecture is a number": after("general.architecture", U32.pack(4)),
    "no architecture": renamed("general.architecture", b"general.architecturE"),
    "no dimensions": after(QUERY, U32.pack(0)),
    "2**31 dimensions": after(QUERY, U32.pack(1 << 31)),
    "a size of zero": after(QUERY, U64.pack(0), skip=4),
    "a size of 2**62": after(QUERY, U64.pack(1 << 62), skip=4),
    "a tensor of type 2**31": after(QUERY, U32.pack(1 << 31), skip=20),
    "a block that does not fit the row": after("blk.0.attn_norm.weight", U32.pack(12), skip=12),
    "data beyond the end": after(QUERY, U64.pack(1 << 40), skip=24),
    "data at 2**64 - 32": after(QUERY, U64.pack((1 << 64) - 32), skip=24),
    "data at an odd place": after(QUERY, U64.pack(7), skip=24),
    "a tensor twice": renamed("blk.0.attn_q.weight", b"blk.0.attn_k.weight"),
}

# What only loading shows, if anything does: refused or crashed there, or it works.
LOADED: dict[str, Damage] = {
    "an unknown architecture": after("general.architecture", b"lamma", skip=12),
    "a tensor is missing": renamed("blk.1.ffn_up.weight", b"blk.1.ffn_uq.weight"),
    "two tensors in one place": after(QUERY, U64.pack(0), skip=24),
    "turned around": after("blk.0.ffn_up.weight", U64.pack(128) + U64.pack(64), skip=4),
    "a tensor of integers": after(QUERY, U32.pack(26), skip=20),
    "2**31 layers": after("llama.block_count", U32.pack(1 << 31), skip=4),
    "no layers": after("llama.block_count", U32.pack(0), skip=4),
    "no heads": after("llama.attention.head_count", U32.pack(0), skip=4),
    "2**31 heads": after("llama.attention.head_count", U32.pack(1 << 31), skip=4),
    "three heads for one": after("llama.attention.head_count_kv", U32.pack(3), skip=4),
    "heads are a fraction": after("llama.attention.head_count", U32.pack(6), skip=0),
    "width of 3": after("llama.embedding_length", U32.pack(3), skip=4),
    "rotated by 2**31": after("llama.rope.dimension_count", U32.pack(1 << 31), skip=4),
    "trained for nothing": after("llama.context_length", U32.pack(0), skip=4),
    "texts for scores": renamed("tokenizer.ggml.scores", b"tokenizer.ggml.scorez"),
    "no token types": renamed("tokenizer.ggml.token_type", b"tokenizer.ggml.token_typo"),
    "no tokens": renamed(TOKENS, b"tokenizer.ggml.tokenz"),
    "an unknown tokeniser": after("tokenizer.ggml.model", b"llana", skip=12),
    "a beginning beyond the vocabulary": after("tokenizer.ggml.bos_token_id", U32.pack(1 << 31), skip=4),
    "an end beyond the vocabulary": after("tokenizer.ggml.eos_token_id", U32.pack(4_000), skip=4),
    **{f"a bit flipped in the metadata, {seed}": flipped(seed, 0.0, 0.86) for seed in range(8)},
    **{f"bits flipped in the tensors' descriptions, {seed}": flipped(seed, 0.87, 1.0, bits=3) for seed in range(8)},
    **{f"bits flipped in the weights, {seed}": flipped(seed, 1.0, 50.0, bits=40) for seed in range(3)},
}


@pytest.fixture(scope="module")
def tiny(tiny_path: str) -> tuple[bytes, GgufContents]:
    return Path(tiny_path).read_bytes(), read_contents(Path(tiny_path))


def written(folder: Path, tiny: tuple[bytes, GgufContents], damage: Damage) -> Path:
    path = folder / "damaged.gguf"
    data, contents = tiny
    path.write_bytes(damage(bytearray(data), contents))
    assert path.read_bytes() != data, "the damage must be one"
    return path


def opening(path: Path) -> LlamaProcess:
    return LlamaProcess.open(EngineSpec(str(path), "chatml", context=512), Patience(load_s=20.0))


@pytest.mark.parametrize("name", SEEN)
def test_damage_in_the_description_is_found_without_native_code(
    tmp_path: Path, tiny: tuple[bytes, GgufContents], name: str
) -> None:
    """A file whose description cannot be right is `ModelDamaged`, with its path and what to do."""
    path = written(tmp_path, tiny, SEEN[name])
    with pytest.raises(ModelDamaged, match=r"damaged\.gguf .*(pull|check its source|can be read|no real model)"):
        read_contents(path)
    with pytest.raises(ModelDamaged):
        opening(path)


@pytest.mark.parametrize("name", LOADED)
async def test_other_damage_is_a_typed_error_or_harmless(
    tmp_path: Path, tiny: tuple[bytes, GgufContents], name: str
) -> None:
    """Whatever llama.cpp makes of the file, it is a typed error that names the file, or it answers."""
    path = written(tmp_path, tiny, LOADED[name])
    try:
        engine = opening(path)
    except (ModelError, EngineError) as error:
        assert "damaged.gguf" in str(error) and len(str(error)) < 1000
        return
    try:
        await engine.score(REQUEST)
    except EngineError as error:
        assert "damaged.gguf" in str(error)
    finally:
        engine.close()


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device", "loop", "unreadable"])
def test_what_is_no_file_is_a_typed_error(tmp_path: Path, tiny_path: str, kind: str) -> None:
    """A path without a file, or with something else, is told at once; nobody waits for a pipe to be written to."""
    path = tmp_path / "model.gguf"
    error: type[ModelError] = ModelError
    match kind:
        case "missing":
            error = ModelNotFound
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path)
        case _:
            path.write_bytes(Path(tiny_path).read_bytes())
            path.chmod(0)
            if os.access(path, os.R_OK):
                pytest.skip("this user may read everything")
    with pytest.raises(error, match=r"model\.gguf"):
        opening(path)


@pytest.fixture
def real(smollm2_path: str, tmp_path: Path) -> Iterator[bytearray]:
    """The bytes of a real model."""
    yield bytearray(Path(smollm2_path).read_bytes())


def test_a_real_model_is_damaged_too(real: bytearray, tmp_path: Path) -> None:
    """A real file cut in its description, cut in its weights, and with bits flipped in its metadata and tensors."""
    path = tmp_path / "model.gguf"
    path.write_bytes(real)
    contents = read_contents(path)
    for size in (contents.data_start // 3, contents.data_start + 1000, len(real) - 1):
        os.truncate(path, size) if size < path.stat().st_size else path.write_bytes(real[:size])
        with pytest.raises(ModelDamaged, match=r"model\.gguf"):
            opening(path)
    for place in (9, 17, 24, contents.data_start - 60):
        path.write_bytes(real[:place] + bytes([real[place] ^ 0x80]) + real[place + 1 :])
        with pytest.raises(ModelDamaged, match=r"model\.gguf"):
            opening(path)


def test_a_sound_file_beside_them_opens(tmp_path: Path) -> None:
    """The tests above fail for the damage, not for the way they open a file."""
    engine = opening(write_tiny_model(tmp_path / "model.gguf"))
    try:
        assert engine.count("a few words") > 0
    finally:
        engine.close()
