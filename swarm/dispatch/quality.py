"""How good an answer is, and how good it would be after asking one tier more: from what is known of a step so far.

For every set of tiers already asked there is one logistic map per tier. For a tier that was asked it says P(its answer
is right); for one that was not, P(the answer kept after asking it too is right). Gain is the difference of the two,
and is learnt as such: what a strong model breaks counts against it. All labels are of rows where the tier's answer is
known; what a map is trained on never judges it (cross-fitting).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from swarm.dispatch.logistic import logit, sigmoid

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the outlook's quantiles
SHIFT_STEPS = 20  # of the bisection that centres an outlook


class Reading(msgspec.Struct, frozen=True, gc=False):
    """What one tier said: its stated confidence, 0..1, and its answer in a form that can be compared, if it has one."""

    confidence: float
    answer: Hashable = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """One task: what each asked tier said, and whether that was right. `context`: numbers about the prompt."""

    readings: Mapping[str, Reading]
    right: Mapping[str, bool]
    context: tuple[float, ...] = ()


class Maps(msgspec.Struct, frozen=True):
    """Of one set of asked tiers, by tier: weights, None where labels were too few, and quantiles of the log-odds that
    the kept answer gains by asking it, empty for an asked tier."""

    weights: tuple[tuple[float, ...] | None, ...]
    outlooks: tuple[tuple[float, ...], ...]


class Quality(msgspec.Struct, frozen=True):
    """Fitted maps of one step. `priors`: accuracy of each tier; `maps`: by the bit mask of the asked tiers."""

    tiers: tuple[str, ...]  # cheapest first
    priors: tuple[float, ...]
    maps: dict[int, Maps]
    n_labels: int = 0

    def estimates(self, readings: Mapping[str, Reading], context: Sequence[float] = ()) -> tuple[float, ...]:
        """By tier: P(its answer is right) if it was asked, else P(the kept answer is right after asking it).

        A set of tiers that was never seen with labels is judged without the cheapest of it, in the end by the priors;
        asking more is never expected to make the kept answer worse, as the better one is kept.
        """
        asked = [(i, readings[t]) for i, t in enumerate(self.tiers) if t in readings]
        fitted = [self._estimate(asked, i, context) for i, _ in asked]
        best = max(fitted, default=None)
        found = iter(fitted)
        return tuple(
            next(found) if tier in readings else max(best or 0.0, self._estimate(asked, i, context, best))
            for i, tier in enumerate(self.tiers)
        )

    def _estimate(
        self, asked: Sequence[tuple[int, Reading]], tier: int, context: Sequence[float], best: float | None = None
    ) -> float:
        for start in range(len(asked) + 1):
            known = asked[start:]
            fitted = self.maps.get(mask_of([i for i, _ in known]))
            weights = fitted.weights[tier] if fitted is not None else None
            if weights is not None:
                return _probability(weights, features(known, tier, context, best if known else None))
        return self.priors[tier]

    def kept(self, readings: Mapping[str, Reading], estimates: Sequence[float]) -> int | None:
        """Which asked tier's answer to keep: the likeliest to be right, the dearest of equals."""
        asked = [i for i, tier in enumerate(self.tiers) if tier in readings]
        return max(asked, key=lambda i: (estimates[i], i), default=None)

    def outlook(self, readings: Mapping[str, Reading], tier: int, quality: float) -> tuple[float, ...]:
        """Confidences of the kept answer that are equally likely after asking this tier; their mean is `quality`."""
        asked = [i for i, name in enumerate(self.tiers) if name in readings]
        while True:
            fitted = self.maps.get(mask_of(asked))
            if fitted is not None and fitted.outlooks[tier]:
                return _centred(fitted.outlooks[tier], quality)
            if not asked:
                return (quality,)
            asked = asked[1:]


def features(
    asked: Sequence[tuple[int, Reading]], target: int, context: Sequence[float] = (), best: float | None = None
) -> list[float]:
    """What a map weighs, in this order:

    for an unasked target the log-odds of P(the kept answer is right), `best`; for an asked one those of its own stated
    confidence; those of the other asked tiers; of every asked tier but one its confidence, negative where it answered
    otherwise than that one, 0 where answers cannot be compared; the prompt's numbers. That one is the target if it was
    asked, else the dearest. Agreement of model families is known to tell more than any feature of the prompt.
    """
    if not asked:
        return list(context)
    own = next((r for i, r in asked if i == target), None)
    about = own if own is not None else asked[-1][1]
    known = [logit(best if best is not None else 0.5) if own is None else logit(own.confidence)]
    known += [logit(reading.confidence) for _, reading in asked if reading is not own]
    known += [_vote(reading, about) for _, reading in asked if reading is not about]
    return [*known, *context]


def mask_of(asked: Sequence[int]) -> int:
    """A set of tiers as the bits of a number."""
    return sum(1 << i for i in asked)


def _vote(reading: Reading, about: Reading) -> float:
    if reading.answer is None or about.answer is None:
        return 0.0
    return reading.confidence if reading.answer == about.answer else -reading.confidence


def _probability(weights: Sequence[float], known: Sequence[float]) -> float:
    z = weights[0]
    for weight, value in zip(weights[1:], known, strict=True):
        z += weight * value
    return sigmoid(z)


def _centred(gains: Sequence[float], quality: float) -> tuple[float, ...]:
    """Log-odds gains shifted so that the mean probability is `quality`."""
    low, high = -12.0, 12.0
    for _ in range(SHIFT_STEPS):
        middle = (low + high) / 2
        if sum(sigmoid(middle + g) for g in gains) < quality * len(gains):
            low = middle
        else:
            high = middle
    return tuple(sigmoid(low + g) for g in gains)
