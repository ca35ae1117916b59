"""A pack's examples as vectors: the nearest of them make a prompt, their distance is a signal."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from protocols.packs import Example, Pack
from swarm.engine.base import Embedder
from swarm.specialists.base import gist, text_of

NEIGHBOURS = 5


class ExampleIndex:
    """`vectors[i]` (unit length) belongs to `pack.examples[i]`."""

    def __init__(self, pack: Pack, vectors: NDArray[np.float32]) -> None:
        self.pack = pack
        self.vectors = vectors
        self.keys = [_key(e) for e in pack.examples]

    @classmethod
    async def build(cls, pack: Pack, embedder: Embedder) -> ExampleIndex:
        return cls(pack, await embedder.embed(tuple(gist(text_of(pack, e.input)) for e in pack.examples)))

    def cosines(self, vector: NDArray[np.float32], without: int | None = None) -> NDArray[np.float32]:
        """Cosine of `vector` to every example, -1 for the one left out."""
        if not self.pack.examples:
            return np.zeros(0, np.float32)
        cosines: NDArray[np.float32] = self.vectors @ vector
        if without is not None:
            cosines[without] = -1.0
        return cosines

    def similarity(self, cosines: NDArray[np.float32]) -> float:
        """Mean cosine of the nearest five."""
        most = min(NEIGHBOURS, len(cosines))
        return float(np.mean(np.partition(cosines, -most)[-most:])) if most else 0.0

    def nearest(self, cosines: NDArray[np.float32], n: int, per_key: int | None = None) -> list[Example]:
        """The `n` nearest examples, at most `per_key` with the same output, the nearest last (next to the question)."""
        chosen: list[Example] = []
        taken: dict[str, int] = {}
        for i in np.argsort(-cosines, kind="stable"):
            if len(chosen) == n or cosines[i] <= -1.0:
                break
            key = self.keys[i]
            if per_key is None or taken.get(key, 0) < per_key:
                taken[key] = taken.get(key, 0) + 1
                chosen.append(self.pack.examples[i])
        return chosen[::-1]

    def likely_labels(self, cosines: NDArray[np.float32], n: int) -> list[str]:
        """The `n` labels whose nearest example is nearest."""
        best: dict[str, float] = {}
        for key, cosine in zip(self.keys, cosines.tolist(), strict=True):
            best[key] = max(best.get(key, -1.0), cosine)
        return sorted(best, key=lambda label: -best[label])[:n]


def _key(example: Example) -> str:
    label = example.output.get("label")
    return label if isinstance(label, str) else json.dumps(example.output, sort_keys=True)
