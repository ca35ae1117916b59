"""Fits the maps of `quality`: every set of asked tiers that has labels enough, in two rounds.

First P(right) of each asked tier's answer, drawn to what its own confidence says, on held-out folds too: from those it
is known which answer would have been kept. Then P(the kept answer is right) after one tier more, drawn to the present
one, so that what is learnt is the gain; and how far the confidence then lies from what was foreseen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swarm.dispatch import logistic
from swarm.dispatch.logistic import Array
from swarm.dispatch.quality import LEVELS, Labelled, Maps, Quality, features

FEWEST = 20  # labelled rows below which a map is not fitted
PRIOR_LABELS = 4  # how many labels the prior accuracy of 1/2 is worth

Weights = tuple[float, ...]


def fit(tiers: Sequence[str], rows: Sequence[Labelled], seed: int = 7) -> Quality:
    """tiers: cheapest first. Works from about 30 rows, good from 300; below `FEWEST` only the accuracies are learnt."""
    names = tuple(tiers)
    sets = {
        mask: known for mask in range(1 << len(names)) if len((known := _Set(names, rows, mask, seed)).at) >= FEWEST
    }
    maps: dict[int, Maps] = {}
    for mask, before in sets.items():
        found = [(before.own.get(i), ()) if mask & 1 << i else _foreseen(before, sets.get(mask | 1 << i), i, seed)
                 for i in range(len(names))]  # fmt: skip
        maps[mask] = Maps(tuple(w for w, _ in found), tuple(outlook for _, outlook in found))
    return Quality(names, tuple(_prior(rows, name) for name in names), maps, len(rows))


class _Set:
    """The rows that asked one set of tiers. `own`: a map per asked tier; `best`, `right`: P(right) of the answer that
    would be kept of each row, held out, and whether it is, (n,)."""

    def __init__(self, names: tuple[str, ...], rows: Sequence[Labelled], mask: int, seed: int) -> None:
        self.asked = [i for i in range(len(names)) if mask & 1 << i]
        needed = [names[i] for i in self.asked]
        self.at = [i for i, row in enumerate(rows) if all(n in row.readings and n in row.right for n in needed)]
        self._known = {at: [(i, rows[at].readings[names[i]]) for i in self.asked] for at in self.at}
        self._rows = rows
        self.own: dict[int, Weights] = {}
        if len(self.at) < FEWEST or not self.asked:
            return
        right = np.array([[rows[at].right[n] for n in needed] for at in self.at], float)
        held_out = np.zeros_like(right)
        for column, tier in enumerate(self.asked):
            x, y = self.x(tier, self.at), right[:, column]
            alone = logistic.fit(x[:, :1], y, 1.0)[1]
            self.own[tier], held_out[:, column] = _crossed(x, y, alone, seed)
        last = len(self.asked) - 1
        kept = last - np.argmax(held_out[:, ::-1], axis=1)  # the dearest of equals
        lines = np.arange(len(kept))
        self.best = dict(zip(self.at, held_out[lines, kept], strict=True))
        self.right = right[lines, kept]

    def x(self, tier: int, at: Sequence[int]) -> Array:
        """Features of these rows for the target `tier`, (n, d)."""
        best = self.best if self.asked and tier not in self.asked else {}
        lines = [features(self._known[i], tier, self._rows[i].context, best.get(i)) for i in at]
        return np.array(lines, float).reshape(len(at), -1)


def _foreseen(before: _Set, after: _Set | None, tier: int, seed: int) -> tuple[Weights | None, tuple[float, ...]]:
    """The map to P(the answer kept after this tier is right), and quantiles of how its log-odds differ from that."""
    if after is None:
        return None, ()
    x = before.x(tier, after.at)
    weights, held_out = _crossed(x, after.right, 1.0 if before.asked else 0.0, seed)
    gained = _logits(np.array([after.best[i] for i in after.at])) - _logits(held_out)
    return weights, tuple(round(float(q), 4) for q in np.quantile(gained, LEVELS))


def _crossed(x: Array, y: Array, first: float, seed: int) -> tuple[Weights, Array]:
    """The map fitted on all rows, and P of every row by a map that has not seen it, (n,).

    first: the prior weight of the first column; the others' is 0.
    """
    prior = np.array([first, *np.zeros(x.shape[1])])[: x.shape[1]]
    strength = logistic.best_strength(x, y, prior, seed) if x.shape[1] else 1.0
    held_out = np.zeros(len(y))
    fold = logistic.folds(len(y), logistic.FOLDS, seed)
    for k in range(logistic.FOLDS):
        held = fold == k
        held_out[held] = logistic.predict(logistic.fit(x[~held], y[~held], strength, prior), x[held])
    return logistic.fit(x, y, strength, prior), held_out


def _logits(p: Array) -> Array:
    p = np.clip(p, 1e-4, 1 - 1e-4)
    return np.asarray(np.log(p / (1 - p)))


def _prior(rows: Sequence[Labelled], name: str) -> float:
    right = [row.right[name] for row in rows if name in row.right]
    return (sum(right) + PRIOR_LABELS / 2) / (len(right) + PRIOR_LABELS)
