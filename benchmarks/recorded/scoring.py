"""Splits of recorded rows and what comes of them: the routers' measures over several splits, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from swarm.backtest.bootstrap import interval
from swarm.backtest.metrics import apgr, coin, cpt, measured, oracle

Places = NDArray[np.int_]
Floats = NDArray[np.float64]

TEST = 0.3  # of the rows; the rest is for learning, and for choosing by cross-validation inside it
FOLDS = 5  # of subjects or categories, each in turn never trained on
RESAMPLES = 400


@dataclass(frozen=True)
class Routed:
    """One router on one test set. `quality_if_kept` is that of the answer given when nothing is sent up; `weak` is the
    quality that its gains are measured from: the same, unless a table says otherwise."""

    scores: Floats
    quality_if_kept: Floats
    strong: Floats
    weak: Floats


@dataclass
class Routers:
    """Test results by router, one for each split."""

    by_name: dict[str, list[Routed]] = field(default_factory=dict)

    def add(self, name: str, scores: Floats, weak: Floats, strong: Floats, *, anchor: Floats | None = None) -> None:
        """`anchor`: the weak quality to measure from, where it is not that of the answer which is kept."""
        self.by_name.setdefault(name, []).append(Routed(scores, weak, strong, weak if anchor is None else anchor))

    def with_bounds(self) -> Routers:
        """Beside a random and an oracle router on the first one's answers."""
        first = next(iter(self.by_name.values()))
        for r in first:
            self.add("random", coin(len(r.weak)), r.quality_if_kept, r.strong, anchor=r.weak)
            self.add("oracle", oracle(r.quality_if_kept, r.strong), r.quality_if_kept, r.strong, anchor=r.weak)
        return self

    def rows(self) -> list[list[str]]:
        return [[name, *_cells(found)] for name, found in self.by_name.items()]


COLUMNS = ("router", "APGR [95%]", "CPT50", "CPT80 [95%]", "RouteLLM's APGR", "kept alone", "strong", "splits")


def split(n: int, seed: int) -> tuple[Places, Places]:
    """(learn, test), test being 30%, at random."""
    order = np.random.default_rng(seed).permutation(n)
    k = round(n * TEST)
    return np.sort(order[k:]), np.sort(order[:k])


def unseen(groups: Sequence[str], seed: int) -> list[tuple[Places, Places]]:
    """(learn, test) for each of `FOLDS` sets of groups: no group is on both sides."""
    names = sorted(set(groups))
    place = dict(zip(names, np.random.default_rng(seed).permutation(len(names)) % FOLDS, strict=True))
    fold = np.array([place[g] for g in groups])
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in np.unique(fold)]


def over_folds(
    n: int, folds: Sequence[tuple[Places, Places]], scored: Callable[[Places, Places], Mapping[str, Floats]]
) -> dict[str, Floats]:
    """Every row scored by what was learnt without its fold: name -> (n,)."""
    found: dict[str, Floats] = {}
    for learn, test in folds:
        for name, values in scored(learn, test).items():
            found.setdefault(name, np.zeros(n))[test] = values
    return found


def _cells(found: list[Routed]) -> list[str]:
    """Means over the splits. An interval is that of one test set, by resampling its rows, averaged over the splits."""
    areas = [interval(partial(_apgr, r), len(r.scores), resamples=RESAMPLES) for r in found]
    calls = [interval(partial(_cpt, r, share=0.8), len(r.scores), resamples=RESAMPLES) for r in found]
    whole = [np.arange(len(r.scores)) for r in found]

    def mean(values: Sequence[float]) -> float:
        return float(np.nanmean(values))

    def shown(values: Sequence[float], low: Sequence[float], high: Sequence[float], digits: int) -> str:
        return f"{mean(values):.{digits}f} [{mean(low):.{digits}f}, {mean(high):.{digits}f}]"

    published = [measured(r.scores, r.quality_if_kept, r.strong).apgr_deciles for r in found]
    anchored = any(r.weak is not r.quality_if_kept for r in found)
    return [
        shown([a.value for a in areas], [a.low for a in areas], [a.high for a in areas], 3),
        f"{100 * mean([_cpt(r, at, 0.5) for r, at in zip(found, whole, strict=True)]):.1f}%",
        shown([100 * c.value for c in calls], [100 * c.low for c in calls], [100 * c.high for c in calls], 1) + "%",
        "" if anchored else f"{mean(published):.3f}",
        f"{mean([float(r.quality_if_kept.mean()) for r in found]):.3f}",
        f"{mean([float(r.strong.mean()) for r in found]):.3f}",
        str(len(found)),
    ]


def _start(r: Routed, at: Places) -> float:
    """Where the kept answers stand on the way from weak to strong: 0 where they are the weak ones."""
    weak, strong = float(r.weak[at].mean()), float(r.strong[at].mean())
    if not strong > weak:
        raise ValueError(f"strong is right {strong:.3f} of the time, weak {weak:.3f}: there is no gap to win")
    return (float(r.quality_if_kept[at].mean()) - weak) / (strong - weak)


def _apgr(r: Routed, at: Places) -> float:
    start = _start(r, at)
    won = apgr(r.scores[at], r.quality_if_kept[at], r.strong[at])
    return start + (1 - start) * won


def _cpt(r: Routed, at: Places, share: float) -> float:
    start = _start(r, at)
    if start >= share:
        return 0.0
    return cpt(r.scores[at], r.quality_if_kept[at], r.strong[at], (share - start) / (1 - start))
