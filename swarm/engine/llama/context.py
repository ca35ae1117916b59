"""One `llama_context`: the KV memory of all sequences, and the decode itself. Used by one thread only."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any

import llama_cpp
import numpy as np

from swarm.engine.base import EngineSpec
from swarm.engine.llama import library
from swarm.engine.llama.batch import Batch
from swarm.engine.llama.logits import Rows
from swarm.engine.llama.model import Model
from swarm.engine.llama.step import SPARE_NODES, Cut, Fork, Span
from swarm.errors import EngineError

_LOGITS_BYTES = 128 << 20  # llama.cpp keeps two copies of a step's logits: a large vocabulary needs a limit on rows
_LEAST_LANES = 64  # sequences for options, beside one for each request and one for each prefix
_EVERYTHING = -1  # llama.cpp: up to the end of a sequence
_KV_TYPES = {"f32": 0, "f16": 1, "q8_0": 8, "bf16": 30}  # ggml.h: enum ggml_type


class NoRoom(Exception):
    """The KV memory has no place for this batch; nothing was changed."""


class Context:
    """Owns a `llama_context` over a model."""

    def __init__(self, model: Model, spec: EngineSpec, adapter: str | None = None) -> None:
        """Raises `EngineError` when llama.cpp cannot make the context (most often: not enough memory).

        With an `adapter` (path of a LoRA file) also `ModelNotFound` and `ModelDamaged`.
        """
        self._model = model
        self.max_tokens = spec.batch
        rows = min(self.max_tokens, _LOGITS_BYTES // (4 * model.n_vocabulary))
        self.n_sequences = min(
            llama_cpp.llama_max_parallel_sequences(), max(rows, 2 * spec.sequences + SPARE_NODES + _LEAST_LANES)
        )
        self.max_rows = max(rows, self.n_sequences)  # llama.cpp insists on a row for each sequence
        self._handle: Any = llama_cpp.llama_init_from_model(model.handle, self._parameters(spec))
        if not self._handle:
            raise EngineError(
                f"model {spec.path}: no context of {spec.context} tokens can be made ({library.last_errors()}); "
                "lower `context` or `batch`"
            )
        if adapter is not None:
            self._attach(adapter)
        self._memory = llama_cpp.llama_get_memory(self._handle)
        self._batch = Batch(self.max_tokens)
        self.n_cells = int(llama_cpp.llama_n_ctx(self._handle))

    def _attach(self, adapter: str) -> None:
        """Apply the LoRA file at this path, at full strength, to everything that is decoded here."""
        try:
            handles = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(self._model.adapter(adapter))
            strengths = (ctypes.c_float * 1)(1.0)
            if llama_cpp.llama_set_adapters_lora(self._handle, handles, 1, strengths) != 0:
                raise EngineError(f"adapter {adapter} cannot be applied ({library.last_errors()})")
        except BaseException:
            self.close()
            raise

    def _parameters(self, spec: EngineSpec) -> Any:
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = spec.context
        parameters.n_batch = parameters.n_ubatch = self.max_tokens
        parameters.n_seq_max = self.n_sequences
        parameters.n_outputs_max = self.max_rows
        parameters.n_outputs_max_per_seq = 0  # an option tree may want a row for every token of a sequence
        parameters.n_threads = parameters.n_threads_batch = spec.threads
        parameters.kv_unified = True  # one pool of cells: forking a sequence costs nothing
        parameters.swa_full = True  # a sliding window that forgets could not be forked or cut
        flash = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        off = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.flash_attn_type = flash if spec.flash_attention else off
        parameters.type_k = parameters.type_v = _KV_TYPES[spec.kv_format]
        return parameters

    def apply(self, operations: Iterable[Fork | Cut]) -> None:
        """Change what the sequences hold, in this order."""
        for operation in operations:
            match operation:
                case Fork(source, target, end):
                    llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, _until(end))
                case Cut(sequence, start, end):
                    llama_cpp.llama_memory_seq_rm(self._memory, sequence, start, _until(end))

    def decode(self, spans: Sequence[Span]) -> Rows:
        """Logits of the wanted outputs, shape (outputs, vocabulary): a view that lives until the next decode.

        Raises `NoRoom` (nothing was changed) and `EngineError` (what the batch's sequences hold is undefined).
        """
        n_rows = self._batch.fill(spans)
        code = llama_cpp.llama_decode(self._handle, self._batch.native)
        if code == 1:
            raise NoRoom
        if code != 0:
            raise EngineError(f"llama_decode failed with {code} ({library.last_errors()})")
        shape = (n_rows, self._model.n_vocabulary)
        if not n_rows:
            return np.empty(shape, np.float32)
        first = ctypes.addressof(llama_cpp.llama_get_logits(self._handle).contents)
        size = 4 * n_rows * self._model.n_vocabulary  # bytes; `as_array` would make a new type for every shape
        return np.frombuffer(memoryview((ctypes.c_char * size).from_address(first)), np.float32).reshape(shape)

    def save(self, sequence: int) -> bytes:
        """What the sequence holds, for `restore` in a context of the same model and parameters.

        Raises `MemoryError`.
        """
        size = llama_cpp.llama_state_seq_get_size(self._handle, sequence)
        buffer = (ctypes.c_uint8 * size)()
        written = llama_cpp.llama_state_seq_get_data(self._handle, buffer, size, sequence)
        return bytes(memoryview(buffer)[:written])

    def restore(self, sequence: int, state: bytes) -> bool:
        """Put back what `save` returned into an empty sequence; false when llama.cpp does not take it."""
        buffer = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        return bool(llama_cpp.llama_state_seq_set_data(self._handle, buffer, len(state), sequence))

    def held(self) -> dict[int, int]:
        """Sequence → how many positions (tokens) it holds, for every sequence that holds any."""
        last = (
            (sequence, llama_cpp.llama_memory_seq_pos_max(self._memory, sequence))
            for sequence in range(self.n_sequences)
        )
        return {sequence: position + 1 for sequence, position in last if position >= 0}

    def close(self) -> None:
        """Free the context. May be called twice."""
        if self._handle:
            llama_cpp.llama_free(self._handle)
            self._handle = None


def _until(end: int | None) -> int:
    return _EVERYTHING if end is None else end
