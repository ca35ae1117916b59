"""The seam to whatever computes: kinds of work, and what comes back.

An engine owns its threads. Its methods are coroutines that may be called from any one event loop; many may wait at
once, and an engine is free to do all waiting work in one batch. Cancelling the awaiting task cancels the work before
the engine's next step. Requests and results are plain data (`protocols.work`), as an engine may live in a process of
its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.work import (
    EngineSpec,
    EngineStatistics,
    Generated,
    GenerateRequest,
    KvFormat,
    Origin,
    Prompt,
    Role,
    Scored,
    ScoreRequest,
    Turn,
)

__all__ = [
    "Embedder",
    "EngineSpec",
    "EngineStatistics",
    "GenerateRequest",
    "Generated",
    "KvFormat",
    "LanguageModel",
    "Origin",
    "Predicted",
    "Predictor",
    "Prompt",
    "Role",
    "ScoreRequest",
    "Scored",
    "Turn",
]


class LanguageModel(Protocol):
    """An engine that reads prompts."""

    async def score(self, request: ScoreRequest) -> Scored:
        """Log-probability (nats) of each option after the prompt.

        Raises `PromptTooLong`, `OutOfTime`, `EngineCrashed`, `EngineClosed`.
        """
        ...

    async def generate(self, request: GenerateRequest) -> Generated:
        """Text after the prompt.

        Raises `PromptTooLong`, `SchemaUnsupported`, `OutOfTime`, `EngineCrashed`, `EngineClosed`.
        """
        ...

    async def candidates(self, request: GenerateRequest, n: int) -> tuple[Generated, ...]:
        """`n` texts after one prompt, which is read once. Text i is that of the same request with `seed + i`.

        Raises what `generate` raises.
        """
        ...

    def count(self, text: str) -> int:
        """Tokens of `text` as plain text."""
        ...

    def statistics(self) -> EngineStatistics:
        """What it has done since it was opened, and what it is doing."""
        ...

    def close(self) -> None:
        """Stop the engine's thread and free the model; waiting work ends with `EngineClosed`. May be called twice."""
        ...


class Embedder(Protocol):
    """An engine that turns texts into unit vectors."""

    async def embed(self, texts: tuple[str, ...]) -> NDArray[np.float32]:
        """Shape (len(texts), dimension), each row of length 1. Texts beyond the model's window are cut.

        Raises `EngineClosed`.
        """
        ...

    def count(self, text: str) -> int:
        """Tokens of `text`, as far as it is read."""
        ...

    def close(self) -> None:
        """Free the model; what is asked from now on ends with `EngineClosed`. May be called twice."""
        ...


@dataclass(frozen=True, slots=True)
class Predicted:
    """`probabilities`: (texts, labels), rows adding up to one; `vectors`: (texts, dimension), which they stand on."""

    probabilities: NDArray[np.float32]
    vectors: NDArray[np.float32]


class Predictor(Protocol):
    """An engine that knows a fixed set of labels."""

    async def predict(self, texts: tuple[str, ...]) -> Predicted:
        """Shapes (len(texts), labels) and (len(texts), dimension). Raises `EngineClosed`."""
        ...
