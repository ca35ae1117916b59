"""Softmax regression on sentence embeddings, as an engine: texts in, probabilities out, whatever waits in one batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swarm.engine.base import Embedder, Predicted


class SoftmaxHead:
    """A `Predictor` over an embedder, which batches the texts of all heads that share it.

    `weights`: shape (labels, dimension); `bias`: (labels,).
    """

    def __init__(self, embedder: Embedder, weights: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        self._embedder = embedder
        self._weights, self._bias = weights, bias

    async def predict(self, texts: tuple[str, ...]) -> Predicted:
        """Probabilities, shape (len(texts), labels), and vectors, (len(texts), dimension). Raises `EngineClosed`."""
        vectors = await self._embedder.embed(texts)
        return Predicted(probabilities(self._weights, self._bias, vectors), vectors)


def probabilities(
    weights: NDArray[np.float32], bias: NDArray[np.float32], vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Softmax of a linear map: (n, dimension) → (n, labels), rows adding up to one."""
    logits = vectors @ weights.T + bias
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), np.float32)
