"""The seam to whatever computes: three kinds of work, and what comes back.

An engine owns its threads. Its methods are coroutines that may be called from any one event loop; many may wait at
once, and an engine is free to do all waiting work in one batch. Cancelling the awaiting task cancels the work before
the engine's next step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a chat. `text` is never read as control tokens, whatever it contains."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads.

    `turns` end with a user turn. `answer_start` is put at the beginning of the model's answer (no trailing space: it
    would break tokenisation). The first `shared` turns are the same for every prompt of a specialist, so an engine
    may keep them decoded.
    """

    turns: tuple[Turn, ...]
    answer_start: str = ""
    shared: int = 0


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """How likely is each of `options` as the continuation of `prompt`?"""

    prompt: Prompt
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """`logprobs[i]`: log-probability (nats, summed over tokens) of `options[i]`; `lengths[i]`: its tokens."""

    logprobs: tuple[float, ...]
    lengths: tuple[int, ...]
    tokens_in: int  # decoded for this request; what a shared prefix saved is not counted
    tokens_cached: int


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """Write at most `max_tokens` after `prompt`, greedily when `temperature` is 0.

    `schema` constrains the text to JSON that satisfies it; `regex` to a match. At most one of them is set.
    `stop` strings end the text and are not part of it.
    """

    prompt: Prompt
    max_tokens: int
    schema: dict[str, Any] | None = None
    regex: str | None = None
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Generated:
    """`finish`: `stop` (end of turn, stop string or grammar complete) or `length` (cut at `max_tokens`)."""

    text: str
    finish: Literal["stop", "length"]
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    logprobs: tuple[float, ...]  # of each generated token under the unmasked model, nats; forced tokens are left out


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """A frozen look at an engine since it was opened."""

    steps: int = 0
    tokens_decoded: int = 0
    tokens_cached: int = 0
    finished: int = 0
    cancelled: int = 0
    waiting: int = 0
    running: int = 0
    prefixes: int = 0


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """How to open a model. `threads` never exceeds the cores granted to the process."""

    path: str
    chat_format: str = "plain"  # a name in `swarm.engine.llama.chat.FORMATS`
    threads: int = 1
    context: int = 4096  # tokens of KV memory, shared by everything in flight
    sequences: int = 32  # requests decoded side by side
    batch: int = 512  # most tokens in one decode
    gpu_layers: int = 0
    options: dict[str, Any] = field(default_factory=dict)


class LanguageModel(Protocol):
    """An engine that reads prompts."""

    async def score(self, request: ScoreRequest) -> Scored:
        """Raises `PromptTooLong`, `EngineClosed`."""
        ...

    async def generate(self, request: GenerateRequest) -> Generated:
        """Raises `PromptTooLong`, `SchemaUnsupported`, `EngineClosed`."""
        ...

    def count(self, text: str) -> int:
        """Tokens of `text` as plain text."""
        ...

    def statistics(self) -> EngineStatistics: ...

    def close(self) -> None:
        """Stop the engine's thread and free the model; waiting work ends with `EngineClosed`. May be called twice."""
        ...


class Embedder(Protocol):
    """An engine that turns texts into unit vectors."""

    async def embed(self, texts: tuple[str, ...]) -> NDArray[np.float32]:
        """Shape (len(texts), dimension), each row of length 1. Texts beyond the model's window are cut."""
        ...

    def count(self, text: str) -> int: ...

    def close(self) -> None: ...
