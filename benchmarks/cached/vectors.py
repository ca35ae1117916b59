"""How long it takes to find the ten nearest of so many vectors: plain products, or usearch's graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
from numpy.typing import NDArray

from swarm.dispatch.cache.neighbours import NEAREST, Neighbours

SIZES = (1_000, 10_000, 100_000)  # the graph of the last takes minutes to build
DIMENSION = 384
QUERIES = 200
COLUMNS = ("vectors", "plain products, ms", "usearch, ms", "usearch finds", "to add one: plain, ms", "usearch, ms")


def row(size: int) -> tuple[str, ...]:
    """Medians over `QUERIES` on this machine. The vectors lie around a tenth as many centres, as texts do."""
    dice = np.random.default_rng(size)
    centres = _unit(dice.standard_normal((size // 10, DIMENSION), np.float32))
    vectors = _unit(centres[dice.integers(0, len(centres), size + QUERIES)] + 0.04 * _noise(dice, size + QUERIES))
    kept, asked = vectors[:size], vectors[size:]
    plain = Neighbours(DIMENSION, most=size + QUERIES)
    for i, vector in enumerate(kept):
        plain.add(vector, i % 150)
    search = _timed(lambda i: plain.nearest(asked[i]))
    add = _timed(lambda i: plain.add(asked[i], 0))
    return (f"{size:,}", f"{search:.3f}", *_usearch(kept, asked, add))


def _usearch(kept: NDArray[np.float32], asked: NDArray[np.float32], add: float) -> tuple[str, ...]:
    try:
        from usearch.index import Index
    except ImportError:
        return ("pip install usearch", "", f"{add:.4f}", "")
    index = Index(ndim=DIMENSION, metric="ip", dtype="f32")
    index.add(np.arange(len(kept)), kept)
    search = _timed(lambda i: index.search(asked[i], NEAREST, threads=1))
    true = np.argsort(-(asked @ kept.T), axis=1)[:, :NEAREST]
    found = [set(index.search(vector, NEAREST).keys.tolist()) for vector in asked]
    share = sum(len(one & set(other.tolist())) for one, other in zip(found, true, strict=True)) / true.size
    own = _timed(lambda i: index.add(len(kept) + i, asked[i], threads=1))
    return (f"{search:.3f}", f"{share:.1%}", f"{add:.4f}", f"{own:.4f}")


def _timed(work: Callable[[int], object]) -> float:
    """Median milliseconds."""
    took = []
    for i in range(QUERIES):
        started = time.perf_counter()
        work(i)
        took.append(time.perf_counter() - started)
    return 1000 * median(took)


def _noise(dice: np.random.Generator, n: int) -> NDArray[np.float32]:
    return dice.standard_normal((n, DIMENSION), np.float32)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
