"""What a dearer model would add: P(it is right) − P(the cheap answer is right), learnt from rows where both are known.

A router that predicts difficulty pays for what nobody can do, and for what the strong model breaks; the gain does not.
Several simple regressors predict it and their mean is taken: on few rows, and on groups never seen before, equal
weights did better than fitted ones. Each is fitted on parts of the rows and asked about the rest, so that no row judges
what has seen it; one without which the mean ranks the held-out rows clearly better is dropped. Where rows come in
groups and new groups will follow, whole groups are held out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Member = Literal["plain", "linear", "near", "trees", "boosted"]

FEWEST = 60  # rows; below that nothing is learnt
FOLDS = 5
MANY = 2000  # rows from which boosting is worth more than averaged trees
CLEARLY = 0.005  # of the rows where one of the two is wrong, averaged over all shares
NEIGHBOURS = 100
PENALTIES = (30.0, 100.0, 300.0, 1000.0, 3000.0)  # in rows; on standardised features
EMBEDDING_WEIGHT = 0.4  # a standardised embedding column beside a standardised trait: there are 384 of them


@dataclass(frozen=True)
class Queries:
    """What is known of n queries before the strong model is asked. traits: (n, d); embeddings: (n, k) or None."""

    traits: Floats
    embeddings: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.traits)

    def rows(self, at: NDArray[np.int_]) -> Queries:
        return Queries(self.traits[at], None if self.embeddings is None else self.embeddings[at])


@dataclass(frozen=True)
class Expected:
    """Each (n,): P(the weak answer is right), P(the strong one would be), and their difference as it is predicted
    (the probabilities are cut to 0..1, the gain is not)."""

    p_weak: Floats
    p_strong: Floats
    gain: Floats


class Regressor(Protocol):
    def predict(self, queries: Queries) -> Floats:
        """(n, 2): weak right, gain."""


@dataclass(frozen=True)
class GainModel:
    """The members whose mean is taken; `fit_gain` makes it. `held_out`: the mean's prediction of the gain for each row
    it was fitted on, from the other rows, (n,): what further fitting may rest on."""

    members: tuple[tuple[Member, Regressor], ...]
    held_out: Expected

    def expected(self, queries: Queries) -> Expected:
        if not len(queries):
            return _expected(np.zeros((0, 2)))
        return _expected(np.mean([regressor.predict(queries) for _, regressor in self.members], axis=0))

    def names(self) -> tuple[Member, ...]:
        return tuple(name for name, _ in self.members)


def fit_gain(
    queries: Queries,
    weak: ArrayLike,
    strong: ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    members: Sequence[Member] | None = None,
    seed: int = 0,
) -> GainModel:
    """Fit on n labelled queries. weak, strong: quality of each, 0..1, (n,).

    groups: hold out whole groups while choosing the members, for a model that will meet groups it has not seen.
    members: which regressors; the default depends on n and on whether there are embeddings.
    Raises ValueError below `FEWEST` rows.
    """
    w, s = np.asarray(weak, np.float64), np.asarray(strong, np.float64)
    if len(w) < FEWEST:
        raise ValueError(f"a gain model needs {FEWEST} rows where both answers are known; got {len(w)}")
    y = np.column_stack([w, s - w])
    names = tuple(members or _default(queries))
    held = np.zeros((len(names), len(w), 2))
    for train, rest in _folds(len(w), groups, seed):
        for i, name in enumerate(names):
            held[i, rest] = _fitted(name, queries.rows(train), y[train], seed).predict(queries.rows(rest))
    kept = _chosen(held[:, :, 1], y[:, 1])
    whole = tuple((names[i], _fitted(names[i], queries, y, seed)) for i in kept)
    return GainModel(whole, _expected(held[kept].mean(axis=0)))


def _expected(found: Floats) -> Expected:
    p_weak, gain = np.clip(found[:, 0], 0.0, 1.0), found[:, 1]
    return Expected(p_weak, np.clip(p_weak + gain, 0.0, 1.0), gain)


def _default(queries: Queries) -> tuple[Member, ...]:
    trees: Member = "boosted" if len(queries) >= MANY else "trees"
    return ("plain", trees) if queries.embeddings is None else ("plain", "linear", "near", trees)


def _chosen(held: Floats, gain: Floats) -> list[int]:
    """Places of the members to keep. held: (members, n)."""
    kept = list(range(len(held)))
    while len(kept) > 1:
        now = _won(held[kept].mean(axis=0), gain)
        less = [_won(held[[j for j in kept if j != i]].mean(axis=0), gain) for i in kept]
        if max(less) <= now + CLEARLY * np.abs(gain).mean():
            break
        kept.pop(int(np.argmax(less)))
    return kept


def _won(scores: Floats, gain: Floats) -> float:
    """Mean gain won, over all shares that can be sent to the strong model, highest scores first."""
    return float(np.cumsum(gain[np.argsort(-scores, kind="stable")]).mean() / len(gain))


def _folds(n: int, groups: Sequence[str] | None, seed: int) -> Iterable[tuple[NDArray[np.int_], NDArray[np.int_]]]:
    random = np.random.default_rng(seed)
    if groups is None or len(set(groups)) < 2:
        fold = random.permutation(n) % FOLDS
    else:
        names = sorted(set(groups))
        of = dict(zip(names, random.permutation(len(names)) % FOLDS, strict=True))
        fold = np.array([of[g] for g in groups])
    for k in np.unique(fold):
        yield np.flatnonzero(fold != k), np.flatnonzero(fold == k)


# --- the regressors ---------------------------------------------------------------------------------------------


def _fitted(name: Member, queries: Queries, y: Floats, seed: int) -> Regressor:
    match name:
        case "plain":
            return Ridge.fit(Queries(queries.traits), y)
        case "linear":
            return Ridge.fit(queries, y)
        case "near":
            return Near.fit(queries, y)
        case "trees" | "boosted":
            return Forest.fit(queries, y, seed, boosted=name == "boosted")


@dataclass(frozen=True)
class Ridge:
    """Least squares on standardised columns, the penalty chosen by leaving each row out (closed form)."""

    mean: Floats
    scale: Floats
    weights: Floats  # (columns, 2)
    intercept: Floats
    embedded: bool

    @classmethod
    def fit(cls, queries: Queries, y: Floats) -> Ridge:
        x = _columns(queries)
        mean, scale = x.mean(axis=0), x.std(axis=0)
        scale = np.where(scale > 1e-9, scale, np.inf)  # a constant column says nothing
        scale[queries.traits.shape[1] :] /= EMBEDDING_WEIGHT
        z, centred = (x - mean) / scale, y - y.mean(axis=0)
        spread, axes = np.linalg.eigh(z.T @ z)
        along, wanted = z @ axes, axes.T @ (z.T @ centred)
        errors = [_left_out(along, spread, wanted, centred, penalty) for penalty in PENALTIES]
        penalty = PENALTIES[int(np.argmin(errors))]
        weights = axes @ (wanted / (spread + penalty)[:, None])
        return cls(mean, scale, weights, y.mean(axis=0), queries.embeddings is not None)

    def predict(self, queries: Queries) -> Floats:
        x = _columns(queries if self.embedded else Queries(queries.traits))
        return np.asarray(self.intercept + ((x - self.mean) / self.scale) @ self.weights, np.float64)


def _left_out(along: Floats, spread: Floats, wanted: Floats, centred: Floats, penalty: float) -> float:
    """Mean squared error of the gain when each row is predicted from the others (PRESS)."""
    leverage = (along**2 / (spread + penalty)).sum(axis=1) + 1 / len(along)
    residual = centred[:, 1] - along @ (wanted[:, 1] / (spread + penalty))
    return float(np.mean((residual / np.maximum(1e-6, 1 - leverage)) ** 2))


@dataclass(frozen=True)
class Near:
    """The mean of the nearest rows by cosine, nearer ones counting more."""

    known: NDArray[np.float32]
    y: Floats

    @classmethod
    def fit(cls, queries: Queries, y: Floats) -> Near:
        assert queries.embeddings is not None, "near needs embeddings"
        return cls(queries.embeddings, y)

    def predict(self, queries: Queries) -> Floats:
        assert queries.embeddings is not None
        k = min(NEIGHBOURS, len(self.known))
        found = np.zeros((len(queries), 2))
        for start in range(0, len(queries), 512):
            cosine = queries.embeddings[start : start + 512] @ self.known.T
            nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
            distance = np.sqrt(np.maximum(1e-4, 2 - 2 * np.take_along_axis(cosine, nearest, axis=1)))
            weight = (1 / distance) / (1 / distance).sum(axis=1, keepdims=True)
            found[start : start + 512] = np.einsum("qk,qkt->qt", weight, self.y[nearest])
        return found


class Trees(Protocol):
    """Scikit-learn's side of it."""

    def predict(self, x: Floats) -> Floats: ...


@dataclass(frozen=True)
class Forest:
    """Trees on the traits: many averaged (few rows), or boosted, shallow and slow (many rows)."""

    trees: tuple[Trees, ...]  # one for both columns, or one each

    @classmethod
    def fit(cls, queries: Queries, y: Floats, seed: int, *, boosted: bool) -> Forest:
        from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor

        if not boosted:
            averaged = ExtraTreesRegressor(200, min_samples_leaf=8, max_features=0.4, random_state=seed)
            return cls((averaged.fit(queries.traits, y),))
        shape = {"max_iter": 120, "learning_rate": 0.04, "max_leaf_nodes": 8, "min_samples_leaf": 40}
        make = HistGradientBoostingRegressor
        return cls(tuple(make(**shape, l2_regularization=5.0, random_state=seed).fit(queries.traits, t) for t in y.T))

    def predict(self, queries: Queries) -> Floats:
        return np.column_stack([trees.predict(queries.traits) for trees in self.trees])


def _columns(queries: Queries) -> Floats:
    if queries.embeddings is None:
        return queries.traits
    return np.concatenate([queries.traits, queries.embeddings.astype(np.float64)], axis=1)
