"""Thresholds with a guarantee: the error among the answers kept is at most so much, with so much certainty.

Learn then Test (Angelopoulos, Bates, Candès, Jordan & Lei 2021): thresholds are tried from the surest answers down,
each by an exact binomial test (Clopper & Pearson 1934) of "more than `error` of what it keeps is wrong", and the
certified one is the lowest whose hypothesis was rejected. The chain begins where the fewest answers could show
anything. Where labels are many, one early mistake need not end it: others begin `APART` times later, each with a share
of the permitted risk; a chain that reaches the next one's start adds that share to its own (the fallback procedure of
Wiens & Dmitrienko 2005). Where labels are few all of the risk goes to the first: with a share each would show little.

The thresholds tried stand at fixed ranks among the confidences; no label chooses them. From where it begins a chain
leaps to where one more mistake is forgiven, as anywhere between the first mistake would end it. The promise is then
exact where an answer's chance of being wrong does not rise with its confidence, which is what a calibrated one is for:
given how many labels lie above the lowest threshold that keeps the promise, their errors are binomial, and each further
answer that a lower rank takes in is wrong with a chance of `error` or more. A `grid` fixed on other data, or by hand,
makes it exact without that. The labels must be a plain sample of what will be asked, unseen by the calibration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise

from swarm.dispatch.binomial import fewest, lower_bound, passes, upper_bound

FIRST = 0.8  # share of the risk of the first chain of tests where there are others, which share the rest
APART = 4  # how many times later each next chain begins
STEP = 0.02  # between thresholds, as a share of the answers
MOST_LABELS = 10_000_000  # where more would be needed, none are said to do


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was shown with `n` labels: at or above `threshold` the error is ≤ `error` with probability `level`.

    `threshold` None: nothing could be shown, everything is to escalate. `accepted` answers of the sample reach the
    threshold, `errors` of them wrong; `bound` is the exact upper bound on their error rate, at the risk spent on it.
    Where nothing was shown these three describe the threshold that came nearest, and `missing` estimates how many more
    labels would do (see `certify`); None: none would, at the observed error.
    """

    threshold: float | None
    error: float
    level: float
    n: int
    accepted: int
    errors: int
    bound: float
    coverage: float
    missing: int | None


def certify(
    confidence: Sequence[float],
    correct: Sequence[bool],
    error: float,
    confidence_level: float = 0.95,
    grid: Sequence[float] | None = None,
) -> Certificate:
    """The lowest threshold at which the error among kept answers is ≤ `error`, with probability `confidence_level`.

    `grid`: thresholds to try, highest first, all in one chain; by default ranks among the confidences (see above).
    `missing` takes the kept share and the error rate observed at a threshold for the true ones, and asks from how many
    labels on one test there would pass; of all thresholds the one that needs the fewest counts.
    Raises `ValueError` for an error or a level outside (0, 1).
    """
    _checked(error=error, confidence_level=confidence_level)
    wrong = [not c for c in correct]
    return _certified(confidence, len(correct), partial(_kept, confidence, wrong), error, confidence_level, grid)


def quality_target(
    confidence: Sequence[float],
    weak: Sequence[bool],
    strong: Sequence[bool],
    share: float,
    confidence_level: float = 0.95,
) -> Certificate:
    """The most to keep from the strong model such that quality stays ≥ `share` of the strong model's.

    What is lost by keeping an answer is lost where it is wrong and the strong model's right: a binomial of all labels.
    (Answers that the strong model would have spoilt are not counted in its favour, so the bound is on the safe side.)
    Half the risk bounds the strong model's quality from below, half the loss from above; the loss can only grow as the
    threshold falls, so that one chain over ranks is exact. In the certificate `error` is the permitted loss, `errors`
    the losses seen, `bound` the most that is lost, as shares of *all* answers; `missing` is None where nothing is kept.
    Raises `ValueError` for a share or a level outside (0, 1).
    """
    _checked(share=share, confidence_level=confidence_level)
    lost = [s and not w for w, s in zip(weak, strong, strict=True)]
    return _kept_quality(confidence, strong, partial(_kept, confidence, lost), share, confidence_level)


def certify_ladder(
    answers: Sequence[Sequence[tuple[float, bool]]],
    target: float,
    confidence_level: float = 0.95,
    strong: Sequence[bool] | None = None,
) -> Certificate:
    """One threshold for several local tiers, of which the first to reach it is believed.

    answers: for each label, the confidence and truth of each tier's answer in the order they are asked. As `certify`
    for an error of `target`; with `strong` (whether its answers are right) as `quality_target` for that share. A lower
    threshold may also change whose answer is kept; the ranks are those of each label's surest answer.
    Raises `ValueError` for a target or a level outside (0, 1).
    """
    _checked(target=target, confidence_level=confidence_level)
    surest = [max(sure for sure, _ in row) for row in answers if row]
    if strong is None:
        bad = [[(sure, not right) for sure, right in row] for row in answers]
        return _certified(surest, len(answers), partial(_kept_of, bad), target, confidence_level, None)
    lost = [[(sure, s and not right) for sure, right in row] for row, s in zip(answers, strong, strict=True)]
    return _kept_quality(surest, strong, partial(_kept_of, lost), target, confidence_level)


# --- the search -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kept:
    """A threshold, how many answers of the sample reach it, and how many of those are wrong."""

    threshold: float
    n: int
    errors: int


_Keep = Callable[[Iterable[float]], list[_Kept]]  # what each of these thresholds, from the highest down, keeps


def _certified(
    sure: Sequence[float], n: int, keep: _Keep, error: float, level: float, grid: Sequence[float] | None
) -> Certificate:
    brought = _chains(sure, error, 1.0 - level, grid)
    won: tuple[_Kept, float] | None = None
    carried = 0.0
    for kept in keep(brought):
        carried += brought[kept.threshold]
        if passes(kept.errors, kept.n, error, carried):
            won = kept, carried
        else:
            carried = 0.0
    if won is None:
        return _nothing(n, keep(_evenly(sure)), error, level)
    kept, spent = won
    bound = upper_bound(kept.errors, kept.n, spent)
    return Certificate(kept.threshold, error, level, n, kept.n, kept.errors, bound, kept.n / n, 0)


def _kept_quality(
    sure: Sequence[float], strong: Sequence[bool], keep: _Keep, share: float, level: float
) -> Certificate:
    n, half = len(strong), (1.0 - level) / 2
    permitted = (1.0 - share) * lower_bound(sum(strong), n, half)
    won: _Kept | None = None
    for kept in keep(_evenly(sure)):
        if not passes(kept.errors, n, permitted, half):
            break
        won = kept
    if won is None:
        return Certificate(None, permitted, level, n, 0, 0, upper_bound(0, n, half), 0.0, None)
    bound = upper_bound(won.errors, n, half)
    return Certificate(won.threshold, permitted, level, n, won.n, won.errors, bound, won.n / n, 0)


def _checked(**shares: float) -> None:
    for name, value in shares.items():
        if not 0.0 < value < 1.0:
            raise ValueError(f"{name} is {value}; it must lie between 0 and 1, both excluded")


# --- the thresholds ---------------------------------------------------------------------------------------------


def _chains(sure: Sequence[float], error: float, risk: float, grid: Sequence[float] | None) -> dict[float, float]:
    """Thresholds to try, highest first, and the risk that a chain beginning at each brings along; no label is seen."""
    if grid is not None:
        return {t: 0.0 if i else risk for i, t in enumerate(sorted(grid, reverse=True))}
    ranked = sorted(sure, reverse=True)
    brought: dict[float, float] = {}
    for rank, share in _ranks(len(ranked), error, risk):
        threshold = ranked[rank - 1]
        brought[threshold] = brought.get(threshold, 0.0) + share
    return brought


@lru_cache
def _ranks(n: int, error: float, risk: float) -> tuple[tuple[int, float], ...]:
    """Where to test, and the risk that a chain brings to where it begins."""
    found: list[tuple[int, float]] = []
    carried, starts = 0.0, _starts(n, error, risk)
    for start, end in pairwise([*starts, n]):
        carried += starts[start]
        second = _forgiving(start, end, error, carried)
        found += [(start, starts[start]), *((rank, 0.0) for rank in range(second, end, max(1, round(STEP * n))))]
    return tuple(found if n in starts or not starts else [*found, (n, 0.0)])


def _starts(n: int, error: float, risk: float) -> dict[int, float]:
    """The ranks at which chains begin, and the risk of each."""
    first = fewest(error, FIRST * risk)
    later: list[int] = []
    while (rank := first * APART ** (len(later) + 1)) <= n:
        later.append(rank)
    if later:
        return {first: FIRST * risk, **dict.fromkeys(later, (1.0 - FIRST) * risk / len(later))}
    first = fewest(error, risk)
    return {first: risk} if first <= n else {}


def _forgiving(start: int, end: int, error: float, risk: float) -> int:
    """The first rank that passes with one mistake more than `start` does; `end` where none below it does."""
    mistakes = 0
    while passes(mistakes, start, error, risk):
        mistakes += 1
    return next((rank for rank in range(start + 1, end) if passes(mistakes, rank, error, risk)), end)


def _evenly(sure: Sequence[float]) -> list[float]:
    """Confidences at evenly spaced ranks, the highest first."""
    ranked = sorted(sure, reverse=True)
    step = max(1, round(STEP * len(ranked)))
    return [*dict.fromkeys([*ranked[step - 1 :: step], *ranked[-1:]])]


def _kept(sure: Sequence[float], bad: Sequence[bool], thresholds: Iterable[float]) -> list[_Kept]:
    ranked = sorted(zip(sure, bad, strict=True), reverse=True)
    found, at, errors = [], 0, 0
    for threshold in thresholds:
        while at < len(ranked) and ranked[at][0] >= threshold:
            errors += ranked[at][1]
            at += 1
        found.append(_Kept(threshold, at, errors))
    return found


def _kept_of(rows: Sequence[Sequence[tuple[float, bool]]], thresholds: Iterable[float]) -> list[_Kept]:
    """Of each row the first answer that reaches the threshold."""
    changes: list[tuple[float, int, int]] = []  # from this threshold down so many more are kept, so many of them bad
    for row in rows:
        surer: list[tuple[float, bool]] = []  # than all before: the others are never the first
        for sure, bad in row:
            if not surer or sure > surer[-1][0]:
                surer.append((sure, bad))
        for i, (sure, bad) in enumerate(surer):
            last = i + 1 == len(surer)
            changes.append((sure, int(last), bad - (0 if last else surer[i + 1][1])))
    changes.sort(reverse=True)
    found, at, n, errors = [], 0, 0, 0
    for threshold in thresholds:
        while at < len(changes) and changes[at][0] >= threshold:
            n += changes[at][1]
            errors += changes[at][2]
            at += 1
        found.append(_Kept(threshold, n, errors))
    return found


# --- what is missing --------------------------------------------------------------------------------------------


def _nothing(n: int, tried: Sequence[_Kept], error: float, level: float) -> Certificate:
    """Nothing was shown: what came nearest, and how far it is."""
    risk = 1.0 - level
    if n >= APART * fewest(error, FIRST * risk):  # other chains have their share of it
        risk *= FIRST
    if not tried:
        return Certificate(None, error, level, n, 0, 0, 1.0, 0.0, fewest(error, risk) if n == 0 else None)
    needs = [(_needed(kept, n, error, risk), kept) for kept in tried]
    labels, kept = min(needs, key=lambda need: (need[0] is None, need[0] or 0, need[1].errors / need[1].n))
    missing = None if labels is None else max(1, labels - n)
    bound = upper_bound(kept.errors, kept.n, risk)
    return Certificate(None, error, level, n, kept.n, kept.errors, bound, kept.n / n, missing)


def _needed(kept: _Kept, n: int, error: float, risk: float) -> int | None:
    """From how many labels on the test of this threshold would pass, were its share and its errors as observed."""
    rate = kept.errors / kept.n
    if rate >= error:
        return None
    low, high = 0, fewest(error, risk)
    while not passes(math.ceil(rate * high), high, error, risk):
        low, high = high, 2 * high
        if high > MOST_LABELS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(math.ceil(rate * middle), middle, error, risk) else (middle, high)
    return math.ceil(high * n / kept.n)
