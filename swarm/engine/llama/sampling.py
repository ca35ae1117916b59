"""Choosing the next token from one row of logits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]  # logits, shape (vocabulary,)
_WORD = 32  # bits; masks are whole words of these
_SEED_BITS = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Sampled:
    """A chosen token, and its log-probability (nats) as if nothing had been masked."""

    token: int
    logprob: float


class Mask:
    """The tokens that may come next, one bit each, lowest first. `bits`: whole words of 32."""

    def __init__(self, bits: bytes) -> None:
        self._bits = bits

    def __contains__(self, token: int) -> bool:
        return bool(self._bits[token >> 3] >> (token & 7) & 1)

    @cached_property
    def tokens(self) -> NDArray[np.intp]:
        """Their ids, ascending. Only words that are not empty are unpacked."""
        words = np.frombuffer(self._bits, np.dtype("<u4"))
        used = np.flatnonzero(words)
        spread = np.unpackbits(words[used].view(np.uint8), bitorder="little").reshape(-1, _WORD)
        at, bit = np.nonzero(spread)
        return used[at] * _WORD + bit

    @property
    def is_choice(self) -> bool:
        """Is there more than one?"""
        words = np.frombuffer(self._bits, np.dtype("<u4"))
        used = np.flatnonzero(words)
        return len(used) > 1 or any(int(words[i]).bit_count() > 1 for i in used)


class Sampler:
    """Greedy at temperature 0; otherwise draws from the softmax.

    The draw for a text's token i depends on the seed and i alone: not on how many tokens a step decodes, nor on what
    else was drawn before.
    """

    def __init__(self, temperature: float, seed: int) -> None:
        if temperature < 0:
            raise ValueError(f"temperature is {temperature}; it must be 0 or more")
        self._temperature = temperature
        self._seed = seed & _SEED_BITS

    def sample(self, logits: Row, position: int, allowed: Mask | None = None) -> Sampled:
        """`logits`: shape (vocabulary,). `position`: tokens of the text before it. `allowed`: at least one token."""
        likeliest = int(logits.argmax())
        if self._temperature:
            token = self._draw(logits, position, allowed)
        elif allowed is None or likeliest in allowed:
            token = likeliest
        else:
            token = int(allowed.tokens[logits[allowed.tokens].argmax()])
        return Sampled(token, float(logits[token]) - _log_normaliser(logits, float(logits[likeliest])))

    def _draw(self, logits: Row, position: int, allowed: Mask | None) -> int:
        values = logits if allowed is None else logits[allowed.tokens]
        weights = values - values.max()
        weights /= np.float32(self._temperature)
        cumulated = np.cumsum(np.exp(weights, out=weights), dtype=np.float64)
        random = np.random.Generator(np.random.Philox(key=np.array([self._seed, position], np.uint64)))
        at = int(np.searchsorted(cumulated, random.random() * cumulated[-1], side="right"))
        at = min(at, len(values) - 1)  # the product may be rounded up to the sum
        return at if allowed is None else int(allowed.tokens[at])


def _log_normaliser(logits: Row, top: float) -> float:
    """log Σ exp; `top` is the largest."""
    scratch = logits - np.float32(top)
    np.exp(scratch, out=scratch)
    return top + float(np.log(scratch.sum()))
