"""A real model of half a megabyte for tests: llama architecture, random weights, loaded in milliseconds.

It writes nonsense, always the same for a seed, and tensors have their usual names (`blk.0.attn_q.weight`, …), so that
adapters can be made for it. Its vocabulary can write any text: letters, digits, signs, some words, and all bytes.
It hardly ever ends a text before `max_tokens`.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # llama.h: enum llama_token_type
_CONTROLS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
_WORDS = (  # each is two others joined, as a tokeniser by pairs can only reach what it can build up to
    "th", "the", "▁the", "in", "ing", "▁a", "an", "▁an", "and", "▁and", "es", "yes", "▁yes", "no", "▁no",
    "us", "use", "user", "ca", "car", "card", "▁card", "sy", "st", "em", "syst", "system", "as", "ass",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TinyShape:
    """How large the model is. `width` is a multiple of `2 * heads`."""

    layers: int = 2
    width: int = 64
    heads: int = 4
    hidden: int = 128
    context: int = 8192  # tokens that it claims to be trained for

    def tensors(self, n_vocabulary: int) -> dict[str, tuple[int, ...]]:
        """Shapes by name, as numpy has them: the last axis is what is multiplied."""
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (n_vocabulary, self.width)}
        for layer in range(self.layers):
            block = {"attn_norm": (self.width,), "ffn_norm": (self.width,)}
            block |= {f"attn_{part}": (self.width, self.width) for part in ("q", "k", "v", "output")}
            block |= {f"ffn_{part}": (self.hidden, self.width) for part in ("gate", "up")}
            block |= {"ffn_down": (self.width, self.hidden)}
            shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
        return shapes | {"output_norm.weight": (self.width,), "output.weight": (n_vocabulary, self.width)}


def vocabulary() -> list[tuple[str, int]]:
    """Every token with its kind; its place is its number."""
    signs = [c for c in string.ascii_letters + string.digits + string.punctuation + "▁äöüßé€" if c not in "<>"]
    return [
        ("<unk>", _UNKNOWN),
        *((token, _CONTROL) for token in _CONTROLS),
        *((f"<0x{byte:02X}>", _BYTE) for byte in range(256)),
        *((token, _NORMAL) for token in (*signs, "<", ">", *_WORDS)),
    ]


def write_tiny_model(path: Path, shape: TinyShape | None = None, seed: int = 0) -> Path:
    """Write the model to `path` and return it. Weights are drawn from `seed`, as 32-bit numbers."""
    shape = shape or TinyShape()
    tokens = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, shape, tokens)
    chance = np.random.default_rng(seed)
    for name, size in shape.tensors(len(tokens)).items():
        drawn = np.ones(size) if "norm" in name else chance.normal(0.0, 2.0 / np.sqrt(size[-1]), size)
        if name == "output.weight":
            drawn[1 : 1 + len(_CONTROLS)] = 0.0  # never likely
        writer.add_tensor(name, drawn.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _describe(writer: gguf.GGUFWriter, shape: TinyShape, tokens: list[tuple[str, int]]) -> None:
    writer.add_name("tiny")
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_scores([float(len(token)) for token, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    names = [token for token, _ in tokens]
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(names.index("<s>"))
    writer.add_eos_token_id(names.index("</s>"))
    writer.add_eot_token_id(names.index("<|im_end|>"))
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
