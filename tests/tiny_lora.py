"""LoRA files for tests: random small changes of a model's weights, as an adapter of llama.cpp's own format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
from tiny_gguf import TinyShape

_RANK = 4


def queries(layers: int, width: int) -> dict[str, tuple[int, int]]:
    """The shapes of every layer's query weights, (out, in), by the tensors' names."""
    return {f"blk.{layer}.attn_q.weight": (width, width) for layer in range(layers)}


def write_lora(
    path: Path,
    shapes: Mapping[str, tuple[int, int]] | None = None,
    *,
    strength: float = 1.0,
    seed: int = 0,
    architecture: str = "llama",
) -> Path:
    """Write an adapter of rank 4 to `path` and return it. `shapes`: those of the tiny model's queries by default.

    It adds to each weight a random matrix whose entries have `strength` times the size of a tiny model's own; with
    a strength of 0 it is an adapter that changes nothing.
    """
    shapes = shapes or queries(TinyShape().layers, TinyShape().width)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(_RANK))  # what is added is scaled by alpha ÷ rank
    chance = np.random.default_rng(seed)
    for name, (rows, columns) in shapes.items():
        down = chance.normal(0.0, 1.0 / np.sqrt(columns), (_RANK, columns))
        up = chance.normal(0.0, 2.0 / np.sqrt(_RANK), (rows, _RANK)) * strength
        writer.add_tensor(f"{name}.lora_a", down.astype(np.float32))
        writer.add_tensor(f"{name}.lora_b", up.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
