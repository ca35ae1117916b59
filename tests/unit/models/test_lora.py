"""A LoRA file is looked at before llama.cpp is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from tiny_lora import write_lora

from swarm.errors import ModelDamaged, ModelNotFound
from swarm.models.lora import read_adapter

NAME = "blk.0.attn_q.weight"
EXPERTS = "blk.0.ffn_up_exps.weight"


def written(path: Path, name: str, down: np.ndarray, up: np.ndarray, kind: str = "adapter") -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(kind)
    writer.add_tensor(f"{name}.lora_a", down)
    writer.add_tensor(f"{name}.lora_b", up)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def numbers(*shape: int, of: type[np.generic] = np.float32) -> np.ndarray:
    return np.zeros(shape, of)


def test_a_lora_is_taken(tmp_path: Path) -> None:
    """Its architecture and its matrices are told; those of experts have three dimensions."""
    contents = read_adapter(write_lora(tmp_path / "a.gguf", {NAME: (8, 6)}))
    assert (contents.architecture, contents.kind) == ("llama", "adapter")
    assert {tensor.name: tensor.shape for tensor in contents.tensors} == {
        f"{NAME}.lora_a": (6, 4),
        f"{NAME}.lora_b": (4, 8),
    }
    read_adapter(written(tmp_path / "b.gguf", EXPERTS, numbers(2, 4, 6, of=np.float16), numbers(2, 8, 4)))


@pytest.mark.parametrize(
    ("name", "down", "up"),
    [
        (NAME, numbers(2, 4, 6), numbers(2, 8, 4)),
        (NAME, numbers(4, 6, of=np.int8), numbers(8, 4)),
        (NAME, numbers(4, 6), numbers(8, 4, of=np.float64)),
        (EXPERTS, numbers(4, 6), numbers(8, 4)),
    ],
)
def test_what_ends_llama_cpp_is_damage(tmp_path: Path, name: str, down: np.ndarray, up: np.ndarray) -> None:
    """Wrong dimensions and types that are not multiplied are named with their tensor."""
    path = written(tmp_path / "a.gguf", name, down, up)
    with pytest.raises(ModelDamaged, match=rf"a\.gguf is damaged: '{name}\.lora_.' of .+; convert the adapter"):
        read_adapter(path)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _foreign(path: Path) -> None:
    path.write_text("not a model, only a note\n")


def _model(path: Path) -> None:
    written(path, NAME, numbers(4, 6), numbers(8, 4), kind="model")


def _other(path: Path) -> None:
    written(path, "control_vector", numbers(4, 6), numbers(8, 4))
    path.write_bytes(path.read_bytes().replace(b".lora_", b".vera_"))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (_cut, r"a\.gguf is damaged: the data of tensor .+; convert the adapter to GGUF again"),
        (_foreign, r"a\.gguf is no GGUF file: it starts with b'not '; convert the adapter to GGUF again"),
        (_model, r"a\.gguf is no LoRA but of type 'model'; name the GGUF file of a LoRA"),
        (_other, r"a\.gguf is no LoRA but an adapter without a LoRA's weights; name"),
    ],
)
def test_what_is_no_lora_is_refused(tmp_path: Path, spoil: Callable[[Path], None], problem: str) -> None:
    """Cut files, other files and models are told apart, each with its remedy."""
    path = write_lora(tmp_path / "a.gguf")
    spoil(path)
    with pytest.raises(ModelDamaged, match=problem):
        read_adapter(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With the key where its path stands."""
    with pytest.raises(ModelNotFound, match=r"gone\.gguf is not on this machine; check `adapter:`"):
        read_adapter(tmp_path / "gone.gguf")
