"""One GGUF file in memory: its weights, its vocabulary, its tokeniser."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import llama_cpp

from swarm.engine.base import EngineSpec, Prompt
from swarm.engine.llama import library
from swarm.engine.llama.chat import FORMATS, Piece, Words
from swarm.errors import EngineClosed, ModelDamaged, ModelError, ModelNotFound

_KEPT_TEXTS = 1024  # whose tokens are remembered


class Model:
    """Owns a `llama_model`. Thread-safe: tokenising only reads the vocabulary, and `close` waits for readers."""

    def __init__(self, handle: Any, spec: EngineSpec) -> None:
        self.handle = handle
        self.path = spec.path
        self.vocabulary = llama_cpp.llama_model_get_vocab(handle)
        self.n_vocabulary = int(llama_cpp.llama_vocab_n_tokens(self.vocabulary))
        self.n_trained = int(llama_cpp.llama_model_n_ctx_train(handle))
        self._adapters: dict[str, Any] = {}
        self._words = lru_cache(_KEPT_TEXTS)(self._plain)  # most turns come again: instructions, examples
        self._readers = 0
        self._closed = False
        self._changed = threading.Condition()
        self._format = FORMATS[spec.chat_format]
        self._controls = {text: self._control(text, spec.chat_format) for text in self._format.controls()}
        self._begin = [self.begin_token] if llama_cpp.llama_vocab_get_add_bos(self.vocabulary) else []

    @classmethod
    def load(cls, spec: EngineSpec, *, vocabulary_only: bool = False) -> Model:
        """Load the file of `spec`. With `vocabulary_only` it can tokenise and nothing else.

        Raises `ModelNotFound`, `ModelDamaged`, and `ModelError` when the chat format does not fit the vocabulary.
        """
        if spec.chat_format not in FORMATS:
            known = ", ".join(sorted(FORMATS))
            raise ModelError(f"model {spec.path}: no chat format {spec.chat_format!r}; use one of {known}")
        if not Path(spec.path).is_file():
            raise ModelNotFound(f"model file {spec.path} is not on this machine; pull it with `swarm models pull`")
        library.start()
        library.last_errors()
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = spec.gpu_layers
        parameters.vocab_only = vocabulary_only
        handle = llama_cpp.llama_model_load_from_file(str(spec.path).encode(), parameters)
        if not handle:
            cause = library.last_errors() or "llama.cpp gave no reason"
            raise ModelDamaged(f"model file {spec.path} cannot be loaded ({cause}); delete it and pull it again")
        try:
            return cls(handle, spec)
        except BaseException:
            llama_cpp.llama_model_free(handle)
            raise

    def adapter(self, path: str) -> Any:
        """The LoRA adapter at `path`, read at its first use; it is freed with the model.

        Raises `ModelNotFound`, and `ModelDamaged` when it cannot be read or was made for another model.
        """
        if path not in self._adapters:
            if not Path(path).is_file():
                raise ModelNotFound(f"adapter {path} is not on this machine; check `adapter:` in the swarm file")
            library.last_errors()
            handle = llama_cpp.llama_adapter_lora_init(self.handle, path.encode())
            if not handle:
                cause = library.last_errors() or "llama.cpp gave no reason"
                raise ModelDamaged(f"adapter {path} does not fit {self.path} ({cause}); use one made for this model")
            self._adapters[path] = handle
        return self._adapters[path]

    @property
    def begin_token(self) -> int:
        """The vocabulary's token for the beginning of a text."""
        return int(llama_cpp.llama_vocab_bos(self.vocabulary))

    @property
    def tokenise_pointer(self) -> int | None:
        """Address of `llama_tokenize`, for libraries that tokenise without Python."""
        return ctypes.cast(llama_cpp.llama_cpp._lib.llama_tokenize, ctypes.c_void_p).value

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keeps the model in memory while the vocabulary is used. Raises `EngineClosed`."""
        with self._changed:
            if self._closed:
                raise EngineClosed(f"the engine of {self.path} is closed; open it again")
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    def tokenise(self, text: str) -> list[int]:
        """Tokens of `text` as plain text: special tokens are neither added nor recognised. Raises `EngineClosed`."""
        with self.reading():
            return self._tokens(text.encode(), parse_special=False)

    def render(self, prompt: Prompt) -> tuple[list[int], list[int]]:
        """Tokens of the prompt's shared turns, and tokens of what follows up to the answer's first token.

        Raises `EngineClosed`.
        """
        shared, rest = self._format.render(prompt)
        with self.reading():
            head, tail = self._encode(shared), self._encode(rest)
        return (self._begin + head, tail) if head else ([], self._begin + tail)

    def is_end(self, token: int) -> bool:
        """Does this token end a generation?"""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocabulary, token))

    def is_control(self, token: int) -> bool:
        """Does this token stand for no text, but mark turns and the like?"""
        return bool(llama_cpp.llama_vocab_is_control(self.vocabulary, token))

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; none for control tokens. They may be a part of a character."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            written = llama_cpp.llama_token_to_piece(self.vocabulary, token, buffer, size, 0, False)
            if written >= 0:
                return buffer.raw[:written]
            size = -written

    def spellings(self) -> list[bytes]:
        """The bytes of every token in the vocabulary; a control token's string is marked by a leading 0xff.

        Raises `EngineClosed`.
        """
        with self.reading():
            return [
                b"\xff" + llama_cpp.llama_vocab_get_text(self.vocabulary, token)
                if self.is_control(token)
                else self.piece(token)
                for token in range(self.n_vocabulary)
            ]

    def detokenise(self, tokens: Sequence[int]) -> bytes:
        """The bytes of `tokens` in a row."""
        return b"".join(map(self.piece, tokens))

    def close(self) -> None:
        """Free the weights when nobody reads. May be called twice."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.wait_for(lambda: self._readers == 0)
        llama_cpp.llama_model_free(self.handle)

    def _encode(self, pieces: Sequence[Piece]) -> list[int]:
        tokens: list[int] = []
        for piece in pieces:
            if isinstance(piece, Words):
                tokens += self._words(piece.text)
            else:
                tokens.append(self._controls[piece.token])
        return tokens

    def _plain(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokens(text.encode(), parse_special=False))

    def _tokens(self, text: bytes, *, parse_special: bool) -> list[int]:
        size = len(text) + 8  # a token stands for at least one byte, but for a few that a tokeniser may add
        buffer = (ctypes.c_int32 * size)()
        written = llama_cpp.llama_tokenize(self.vocabulary, text, len(text), buffer, size, False, parse_special)
        assert written >= 0, f"{len(text)} bytes became {-written} tokens"
        return buffer[:written]

    def _control(self, text: str, chat_format: str) -> int:
        tokens = self._tokens(text.encode(), parse_special=True)
        if len(tokens) != 1 or not self.is_control(tokens[0]):
            raise ModelError(
                f"model {self.path}: chat format {chat_format!r} needs the control token {text!r}, "
                "which this vocabulary does not have; set another chat_format"
            )
        return tokens[0]
