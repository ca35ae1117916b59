"""Branch and bound over options: which of them must still be read to know the best, or the best and the second.

A log-probability only falls with each token, so what is known of an option's beginning bounds the whole of it from
above. Options whose bound is below the best score that is known exactly, or the second best, need no more reading.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swarm.engine.llama.scoring import OptionTree


class Bounds:
    """What the options' scores can be at most. Shapes: (options,) throughout.

    A score is an option's log-probability (nats) times its weight plus its offset. The first `sure` have to be certain.
    """

    def __init__(
        self, tree: OptionTree, weights: NDArray[np.float64], offsets: NDArray[np.float64], sure: int = 2
    ) -> None:
        self._weights, self._offsets, self._sure = weights, offsets, sure
        longest = max(map(len, tree.paths))
        self._paths = np.full((len(tree.paths), longest), len(tree.tokens))  # padded with an edge beyond the last
        for row, path in zip(self._paths, tree.paths, strict=True):
            row[: len(path)] = path
        self.logprobs = np.zeros(len(tree.paths))
        self.exact: NDArray[np.bool_] = np.zeros(len(tree.paths), np.bool_)

    def learn(self, edges: NDArray[np.float64]) -> None:
        """`edges`: log-probability (nats) of each edge of the tree, shape (edges,), NaN where it is not known."""
        steps = np.append(edges, 0.0)[self._paths]
        known: NDArray[np.bool_] = np.logical_and.accumulate(~np.isnan(steps), axis=1)
        self.logprobs = np.where(known, steps, 0.0).sum(axis=1)
        self.exact = np.asarray(known.all(axis=1))

    @property
    def scores(self) -> NDArray[np.float64]:
        """Shape (options,): each option's score, or what it can be at most while it is not `exact`."""
        return self.logprobs * self._weights + self._offsets

    def open(self) -> list[int]:
        """Options that can still be among the first `sure`, the most promising first; none when those are certain."""
        scores = self.scores
        certain = np.sort(scores[self.exact])
        last = certain[-self._sure] if len(certain) >= self._sure else -np.inf
        unread = np.flatnonzero(~self.exact & (scores > last))
        return [int(option) for option in unread[np.argsort(-scores[unread], kind="stable")]]
