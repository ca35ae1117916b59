"""How likely a reuse would be wrong, learnt from those that were looked at. It decides how much can be reused, and
nothing that is promised rests on its being right (`audit`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

FEWEST = 60  # labels before anything is believed, this many at least
FEWEST_OF_EACH = 4  # of them right, and wrong
GROWTH = 1.15  # it is learnt anew whenever so many times as many labels are there
MOST = 4_000  # labels kept, the latest
STRENGTH = 1.0


class Risk:
    """P(wrong) of a candidate by its features: a logistic model, fitted to labels as they come."""

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        self.weights = tuple(weights) if weights else None
        self._labels: deque[tuple[tuple[float, ...], bool]] = deque(maxlen=MOST)
        self._seen = 0
        self._next = FEWEST

    def of(self, features: Sequence[float]) -> float:
        """Between 0 and 1; 1 as long as nothing was learnt."""
        from swarm.dispatch.logistic import sigmoid

        if self.weights is None:
            return 1.0
        constant, *weights = self.weights
        return sigmoid(constant + sum(w * x for w, x in zip(weights, features, strict=True)))

    def learn(self, features: tuple[float, ...], wrong: bool) -> None:
        """One more label. From time to time all that are kept are fitted."""
        self._labels.append((features, wrong))
        self._seen += 1
        if self._seen >= self._next:
            self._next = int(self._seen * GROWTH) + 1
            self._fit()

    def _fit(self) -> None:
        import numpy as np

        from swarm.dispatch.logistic import fit

        y = np.array([wrong for _, wrong in self._labels], np.float64)
        if min(y.sum(), len(y) - y.sum()) >= FEWEST_OF_EACH:
            self.weights = fit(np.array([features for features, _ in self._labels]), y, STRENGTH)
