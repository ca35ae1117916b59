"""How true confidences are: their error, their order, and how much could be kept at a given accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swarm.dispatch.explore import effective
from swarm.errors import SwarmError

WIDTH = 40  # characters of the terminal diagram from 0 to 1

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of like confidence: the mean of what was said and the share that was right."""

    said: float
    was: float
    n: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """What confidences were worth on labelled answers.

    `ece`: mean |said - was| over bins of equal size; `brier`: mean squared distance to the truth; `auroc`: chance that
    a right answer is surer than a wrong one (None: only one of the two was seen); `coverage_95`: `coverage_at` 0.95.
    `worth`: how many plain labels the `n` weighted ones are worth.
    """

    n: int
    accuracy: float
    ece: float
    brier: float
    auroc: float | None
    coverage_95: float
    bins: tuple[Bin, ...]
    worth: float


def reliability(
    confidences: Sequence[float], correct: Sequence[bool], bins: int = 10, weights: Sequence[float] | None = None
) -> Reliability:
    """Every figure at once. `weights`: how often each answer counts. Raises `ValueError` where there is no answer."""
    said, was, counts = _arrays(confidences, correct, weights)
    if len(said) == 0:
        raise ValueError("no labelled answers; reliability needs at least one")
    order = np.argsort(said, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    found = tuple(Bin(_mean(said[p], counts[p]), _mean(was[p], counts[p]), len(p)) for p in parts)
    gaps = sum(counts[p].sum() * abs(b.said - b.was) for b, p in zip(found, parts, strict=True))
    return Reliability(
        n=len(said),
        accuracy=_mean(was, counts),
        ece=float(gaps / counts.sum()),
        brier=_mean((said - was) ** 2, counts),
        auroc=auroc(confidences, correct, weights),
        coverage_95=coverage_at(confidences, correct, 0.95, weights),
        bins=found,
        worth=effective(counts.tolist()),
    )


def auroc(
    confidences: Sequence[float], correct: Sequence[bool], weights: Sequence[float] | None = None
) -> float | None:
    """The chance that a right answer is surer than a wrong one, ties counted half (Mann & Whitney 1947)."""
    said, was, counts = _arrays(confidences, correct, weights)
    right, wrong = float(counts @ was), float(counts @ (1 - was))
    if not right or not wrong:
        return None
    values, place = np.unique(said, return_inverse=True)
    wrong_at = np.bincount(place, counts * (1 - was), len(values))
    below = np.cumsum(wrong_at) - wrong_at / 2  # of equal ones, half
    return float(np.bincount(place, counts * was, len(values)) @ below / (right * wrong))


def coverage_at(
    confidences: Sequence[float], correct: Sequence[bool], accuracy: float, weights: Sequence[float] | None = None
) -> float:
    """The largest share of answers, the surest first and equally sure ones together, that is right this often."""
    said, was, counts = _arrays(confidences, correct, weights)
    order = np.argsort(-said, kind="stable")
    kept = np.cumsum(counts[order])
    last_of_its_kind = np.append(np.diff(said[order]) != 0, True)
    enough = (np.cumsum((was * counts)[order]) >= accuracy * kept - 1e-9) & last_of_its_kind
    return float(kept[enough].max() / kept[-1]) if enough.any() else 0.0


def _arrays(
    confidences: Sequence[float], correct: Sequence[bool], weights: Sequence[float] | None
) -> tuple[Floats, Floats, Floats]:
    said, was = np.asarray(confidences, float), np.asarray(correct, float)
    return said, was, np.ones(len(said)) if weights is None else np.asarray(weights, float)


def _mean(values: Floats, counts: Floats) -> float:
    return float(values @ counts / counts.sum())


def drawn(reliability: Reliability) -> str:
    """A diagram for the terminal: a line for each bin, its bar as long as what was right, `|` where that was said."""
    lines = [f" said    was  0{'right':^{WIDTH - 2}}1      n"]
    for b in reliability.bins:
        bar = ["█" if i < round(b.was * WIDTH) else "·" for i in range(WIDTH)]
        bar[min(WIDTH - 1, round(b.said * WIDTH))] = "|"
        lines.append(f"{b.said:5.3f}  {b.was:5.3f}  {''.join(bar)}  {b.n:5,}")
    order = "-" if reliability.auroc is None else f"{reliability.auroc:.3f}"
    lines.append(
        f"ECE {reliability.ece:.3f}, Brier {reliability.brier:.3f}, AUROC {order}, "
        f"kept at 95% right: {reliability.coverage_95:.1%} of {reliability.n:,}"
    )
    return "\n".join(lines)


def picture(found: Reliability | Mapping[str, Reliability], path: Path) -> None:
    """The same as an image, a line for each name where there are several; the kind of image follows the path's suffix.

    Raises `SwarmError` where matplotlib is not installed or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise SwarmError(f"{path}: drawing needs matplotlib; pip install swarmlet[plot]") from e
    named = {"": found} if isinstance(found, Reliability) else found
    figure = Figure(figsize=(5, 5), layout="tight")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
    for name, each in named.items():
        said, was = [b.said for b in each.bins], [b.was for b in each.bins]
        spread = [1.96 * math.sqrt(b.was * (1 - b.was) / b.n) for b in each.bins]
        label = f"{name} ECE {each.ece:.3f}, Brier {each.brier:.3f}, n = {each.n:,}".strip()
        axes.errorbar(said, was, yerr=spread, marker="o", markersize=3, capsize=2, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that was right")
    axes.legend(loc="upper left", fontsize="small")
    try:
        figure.savefig(path)
    except (OSError, ValueError) as e:
        raise SwarmError(f"{path}: cannot be written: {e}") from e
