"""Choosing the next token from one row of logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swarm.engine.llama.scoring import log_normalisers


@dataclass(frozen=True, slots=True)
class Sampled:
    """A chosen token, and its log-probability (nats) as if nothing had been masked."""

    token: int
    logprob: float


class Sampler:
    """Greedy at temperature 0; otherwise draws from the softmax with a generator of its own."""

    def __init__(self, temperature: float, seed: int) -> None:
        if temperature < 0:
            raise ValueError(f"temperature is {temperature}; it must be 0 or more")
        self._temperature = temperature
        self._random = np.random.default_rng(seed) if temperature else None

    def sample(self, logits: NDArray[np.float32], allowed: NDArray[np.intp] | None = None) -> Sampled:
        """`logits`: shape (vocabulary,). `allowed`: token ids that may be chosen, at least one; `None` for all."""
        values = logits if allowed is None else logits[allowed]
        if self._random is not None:
            # Gumbel-max: the argmax of logits plus this noise is a draw from their softmax.
            noise = self._random.gumbel(size=values.shape).astype(np.float32)
            values = values / np.float32(self._temperature) + noise
        best = int(np.argmax(values))
        token = best if allowed is None else int(allowed[best])
        return Sampled(token, float(logits[token]) - float(log_normalisers(logits[None, :])[0]))
