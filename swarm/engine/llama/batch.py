"""The input of one decode, written through numpy straight into the memory that llama.cpp reads."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np

from swarm.engine.llama.step import Span


class Batch:
    """Room for `capacity` tokens, reused by every step. Shapes: all arrays are (capacity,)."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._counts = np.zeros(capacity, np.int32)
        self._outputs = np.zeros(capacity, np.int8)
        self._pointers = np.zeros(capacity, np.uintp)  # of each token's sequences
        self._sequences: list[ctypes.Array[ctypes.c_int32]] = []  # what the pointers point to
        self.native = llama_cpp.llama_batch()
        for name, array in (
            ("token", self._tokens),
            ("pos", self._positions),
            ("n_seq_id", self._counts),
            ("seq_id", self._pointers),
            ("logits", self._outputs),
        ):
            setattr(self.native, name, _pointer(name, array))

    def fill(self, spans: Sequence[Span]) -> int:
        """Replace the content by `spans`, `capacity` tokens at most; returns the number of outputs, in their order."""
        self._sequences.clear()
        end = outputs = 0
        for span in spans:
            start, end = end, end + len(span.tokens)
            sequences = (ctypes.c_int32 * len(span.sequences))(*span.sequences)
            self._sequences.append(sequences)
            self._tokens[start:end] = span.tokens
            self._positions[start:end] = np.arange(span.position, span.position + end - start)
            self._counts[start:end] = len(span.sequences)
            self._pointers[start:end] = ctypes.addressof(sequences)
            self._outputs[start:end] = 0
            self._outputs[end - span.outputs : end] = 1
            outputs += span.outputs
        self.native.n_tokens = end
        return outputs


def _pointer(name: str, array: np.ndarray[Any, Any]) -> Any:
    kind = dict(llama_cpp.llama_batch._fields_)[name]
    return ctypes.cast(array.ctypes.data, kind)
