"""Choosing the next token from one row of logits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from swarm.engine.llama.logits import Row, log_normalisers

_WORD = 32  # bits; masks are whole words of these
_BLOCK = 512
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

    def spread(self, size: int) -> NDArray[np.bool_]:
        """Shape (size,): is this token allowed?"""
        return np.unpackbits(np.frombuffer(self._bits, np.uint8), bitorder="little", count=size).view(np.bool_)

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
        """Choose a token.

        `logits`: shape (vocabulary,). `position`: tokens of the text before it. `allowed`: at least one token.
        """
        likeliest = int(logits.argmax())
        if self._temperature:
            token = self._draw(logits, position, allowed)
        elif allowed is None or likeliest in allowed:
            token = likeliest
        else:
            token = int(allowed.tokens[logits[allowed.tokens].argmax()])
        return Sampled(token, float(logits[token] - log_normalisers(logits[None])[0]))

    def _draw(self, logits: Row, position: int, allowed: Mask | None) -> int:
        values = logits if allowed is None else np.where(allowed.spread(len(logits)), logits, -np.inf)
        weights = values - values.max()
        weights *= np.float32(1 / self._temperature)
        np.exp(weights, out=weights)
        random = np.random.Generator(np.random.Philox(key=np.array([self._seed, position], np.uint64)))
        return _place(weights, random.random())


def _place(weights: Row, share: float) -> int:
    """The first place up to which the weights sum to more than `share` (0 ≤ share < 1) of their total.

    Whole blocks are summed first: a running sum over a large vocabulary takes longer than all the rest.
    """
    sums = np.cumsum(np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK)), dtype=np.float64)
    sought = min(share * sums[-1], np.nextafter(sums[-1], 0))  # the product may be rounded up
    block = int(np.searchsorted(sums, sought, side="right"))
    start = block * _BLOCK
    inside = np.cumsum(weights[start : start + _BLOCK], dtype=np.float64) + (sums[block - 1] if block else 0.0)
    at = start + int(np.searchsorted(inside, sought, side="right"))
    if at < start + len(inside) and weights[at]:
        return at
    return start + int(np.flatnonzero(weights[start : start + _BLOCK])[-1])  # the sums were rounded differently
