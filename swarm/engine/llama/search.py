"""Branch and bound over options: which of them must still be read to know the best and the second.

A log-probability only falls with each token, so what is known of an option's beginning bounds the whole of it from
above. Options whose bound is below the second best score that is known exactly need no more reading.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swarm.engine.llama.scoring import OptionTree

_AT_ONCE = 2  # options read to their end at a time, the most promising first
_CLOSE = 1.0  # and those whose bound is within so many nats of the most promising: they are likely to be needed too


class Bounds:
    """What the options' scores can be at most. Shapes: (options,) throughout.

    A score is an option's log-probability (nats) times its weight plus its offset.
    """

    def __init__(self, tree: OptionTree, weights: NDArray[np.float64], offsets: NDArray[np.float64]) -> None:
        self._weights, self._offsets = weights, offsets
        longest = max(map(len, tree.paths))
        self._paths = np.full((len(tree.paths), longest), len(tree.tokens))  # padded with an edge beyond the last
        for row, path in zip(self._paths, tree.paths, strict=True):
            row[: len(path)] = path
        self.logprobs = np.zeros(len(tree.paths))
        self.exact: NDArray[np.bool_] = np.zeros(len(tree.paths), np.bool_)

    def learn(self, edges: NDArray[np.float64]) -> None:
        """`edges`: log-probability of each edge of the tree, shape (edges,), NaN where it is not known."""
        steps = np.append(edges, 0.0)[self._paths]
        known: NDArray[np.bool_] = np.logical_and.accumulate(~np.isnan(steps), axis=1)
        self.logprobs = np.where(known, steps, 0.0).sum(axis=1)
        self.exact = np.asarray(known.all(axis=1))

    @property
    def scores(self) -> NDArray[np.float64]:
        return self.logprobs * self._weights + self._offsets

    def open(self) -> list[int]:
        """Options that should be read to their end next; none when the best and the second are certain."""
        scores = self.scores
        certain = np.sort(scores[self.exact])
        second = certain[-2] if len(certain) > 1 else -np.inf
        unread = np.flatnonzero(~self.exact & (scores > second))
        if not len(unread):
            return []
        ranked = unread[np.argsort(-scores[unread], kind="stable")]
        close = int((scores[ranked] >= scores[ranked[0]] - _CLOSE).sum())
        return [int(option) for option in ranked[: max(_AT_ONCE, close)]]
