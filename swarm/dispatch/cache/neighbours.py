"""Earlier inputs as vectors, and the nearest of them by plain matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEAREST = 10  # that have a say
MOST = 10_000  # rows: beyond that products take several milliseconds
BEGIN = 256  # rows that are made room for at first
GONE = -1  # the group of a row that has no say
SHARPNESS = 20.0  # a vote is worth e^-1 of the nearest's where the similarity is 1/20 less


@dataclass(frozen=True, slots=True)
class Candidate:
    """The answer that the nearest earlier inputs speak for. `row`: the nearest of those that gave it.

    `similarity`: its cosine. `share`: of the votes, 0 to 1. `margin`: by how much the nearest with another answer is
    farther away (the farthest of all, where there is none). `given`: how many of the nearest gave it.
    """

    row: int
    similarity: float
    share: float
    margin: float
    given: int

    @property
    def features(self) -> tuple[float, ...]:
        """What tells how likely it is wrong."""
        return (self.similarity, self.share, self.margin, self.given / NEAREST)


class Neighbours:
    """Unit vectors with the answer each input got and the group it belongs to, both as numbers.

    Holds at most `most`; then each new one takes the place of the oldest.
    """

    def __init__(self, dimension: int, most: int = MOST) -> None:
        self._most = most
        self._vectors = np.zeros((min(BEGIN, most), dimension), np.float32)
        self._answers = np.zeros(len(self._vectors), np.int64)
        self._groups = np.zeros(len(self._vectors), np.int64)
        self._added = 0

    def __len__(self) -> int:
        return min(self._added, self._most)

    def add(self, vector: NDArray[np.float32], answer: int, group: int = 0) -> int:
        """Returns its row."""
        row = self._added % self._most
        if row == len(self._vectors):
            room = min(self._most, 2 * row) - row
            self._vectors = np.concatenate([self._vectors, np.zeros((room, self._vectors.shape[1]), np.float32)])
            self._answers = np.concatenate([self._answers, np.zeros(room, np.int64)])
            self._groups = np.concatenate([self._groups, np.zeros(room, np.int64)])
        self._vectors[row], self._answers[row], self._groups[row] = vector, answer, group
        self._added += 1
        return row

    def drop(self, row: int) -> None:
        """It has no say any more."""
        self._groups[row] = GONE

    def nearest(self, vector: NDArray[np.float32], group: int = 0) -> Candidate | None:
        """What the nearest of this group speak for; None where it has no more than one."""
        n = len(self)
        similar = self._vectors[:n] @ vector
        others = self._groups[:n] != group
        if others.any():
            similar[others] = -2.0
        rows = np.argpartition(-similar, NEAREST)[:NEAREST] if n > NEAREST else np.arange(n)
        rows = rows[np.argsort(-similar[rows])]
        rows = rows[similar[rows] > -1.5]
        return candidate(rows, similar[rows], self._answers[rows])


def candidate(rows: NDArray[np.int_], similar: NDArray[np.float32], answers: NDArray[np.int64]) -> Candidate | None:
    """The answer with the most votes. rows, similar, answers: (k,), the nearest first."""
    if len(rows) < 2:
        return None
    said, near = answers.tolist(), similar.tolist()
    votes: dict[int, float] = {}
    for answer, weight in zip(said, np.exp(SHARPNESS * (similar - similar[0])).tolist(), strict=True):
        votes[answer] = votes.get(answer, 0.0) + weight
    best = max(votes, key=votes.__getitem__)
    first = said.index(best)
    other = next((s for s, answer in zip(near, said, strict=True) if answer != best), near[-1])
    return Candidate(int(rows[first]), near[first], votes[best] / sum(votes.values()), near[first] - other,
                     said.count(best))  # fmt: skip
