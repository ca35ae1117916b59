"""A look at a LoRA file without native code: is it one, and is there nothing in it that llama.cpp does not survive?"""

from __future__ import annotations

from pathlib import Path

from swarm.errors import ModelDamaged, ModelNotFound
from swarm.models.gguf_contents import GgufContents, GgufTensor, read_contents

_PARTS = (".lora_a", ".lora_b")  # a weight's name and one of these: the two matrices whose product is added to it
_EXPERTS = "_exps."  # in the names of weights that are matrices in a row, one for each expert
_NOT_MULTIPLIED = range(24, 29)  # ggml.h, enum ggml_type: whole numbers, and numbers of 64 bits


def read_adapter(path: Path) -> GgufContents:
    """What is in the LoRA at `path`. Whether it fits a model, llama.cpp says when both are loaded.

    Raises `ModelNotFound`, `ModelError` when it cannot be read, and `ModelDamaged` when it is no LoRA or no sound one.
    """
    try:
        contents = read_contents(path)
    except ModelNotFound:
        raise ModelNotFound(f"adapter {path} is not on this machine; check `adapter:` in the swarm file") from None
    except ModelDamaged as e:
        cause = str(e).removeprefix("model file ").rpartition("; ")[0]  # an adapter is not pulled: another remedy
        raise ModelDamaged(f"{cause}; convert the adapter to GGUF again") from None
    parts = [tensor for tensor in contents.tensors if tensor.name.endswith(_PARTS)]
    if contents.kind != "adapter" or not parts:
        what = "an adapter without a LoRA's weights" if contents.kind == "adapter" else f"of type {contents.kind!r}"
        raise ModelDamaged(f"{path} is no LoRA but {what}; name the GGUF file of a LoRA")
    for tensor in parts:
        if not _can_be_multiplied(tensor):
            raise ModelDamaged(
                f"{path} is damaged: {tensor.name!r} of type {tensor.type} and shape {tensor.shape} is no matrix of "
                "floating-point numbers; convert the adapter to GGUF again"
            )
    return contents


def _can_be_multiplied(tensor: GgufTensor) -> bool:
    """llama.cpp takes any type and looks at the first two dimensions only; it ends the process at the first token."""
    dimensions = 3 if _EXPERTS in tensor.name else 2
    return len(tensor.shape) == dimensions and tensor.type not in _NOT_MULTIPLIED
