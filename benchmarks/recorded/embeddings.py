"""Sentence embeddings of recorded prompts, computed once and kept in the cache folder."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swarm.engine.embed import OnnxEmbedder
from swarm.models.store import ModelStore, default_home

MODEL = "all-MiniLM-L6-v2"
CHUNK = 256  # texts between two lines of progress


def embedded(texts: Sequence[str]) -> NDArray[np.float32]:
    """(n, 384), rows of length 1. Kept under `~/.cache/swarmlet/benchmarks` by a hash of the texts and the model.

    Raises `ModelNotFound` when the model was not pulled.
    """
    files = ModelStore().path(MODEL)
    key = hashlib.sha256("\0".join((files.sha256, *texts)).encode()).hexdigest()[:24]
    kept = default_home() / "benchmarks" / f"embedded-{key}.npz"
    if kept.is_file():
        with np.load(kept) as archive:
            return np.asarray(archive["vectors"], np.float32)
    assert files.tokenizer is not None
    embedder = OnnxEmbedder(files.weights, files.tokenizer, threads=1)
    try:
        vectors = asyncio.run(_embed(embedder, texts))
    finally:
        embedder.close()
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.savez(kept, vectors=vectors)
    return vectors


async def _embed(embedder: OnnxEmbedder, texts: Sequence[str]) -> NDArray[np.float32]:
    parts = []
    for start in range(0, len(texts), CHUNK):
        parts.append(await embedder.embed(tuple(texts[start : start + CHUNK])))
        print(f"\rembedded {start + len(parts[-1])} of {len(texts)} prompts", end="", flush=True)
    print()
    return np.concatenate(parts)
