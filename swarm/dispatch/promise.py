"""What can be promised of a step's local answers, and which of its tiers are believed for that. Pure.

All local ways share one threshold on their confidence, so that a single one that errs where it is sure can undo what
the others could show. Which of them are believed is therefore chosen first, on the learning half of the labels alone;
the certificate of the chosen ones, on the half that shows, is as exact as if they had been the only ones (split
fixed-sequence testing: Angelopoulos et al. 2021, section 2.4; Laufer-Goldshtein, Fisch, Barzilay & Jaakkola 2023).

The choice is by what the learning half would have certified with each part of the ladder, on average over samples of
it drawn with replacement, by confidences of maps that had not seen the answers. It can be wrong; the promise is not.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from protocols.control import Calibration
from swarm.dispatch import calibrate
from swarm.dispatch.certify import Certificate, certify_ladder
from swarm.dispatch.learnt import Halves, Seen, pooled
from swarm.plan.plan import Aim

DRAWS = 40
MOST = 1000  # labels in a draw: with more the parts of a ladder hardly change places
SEED = 0

Said = Mapping[str, tuple[float, bool]]  # by way: confidence, and whether it is right


@dataclass(frozen=True, slots=True)
class Promise:
    """`kept`: the local ways that are believed from the certificate's threshold on; of the others no answer is kept."""

    certificate: Certificate
    kept: frozenset[str]


def promised(
    local: Sequence[str], strongest: str | None, aim: Aim, calibrations: Mapping[str, Calibration], half: Halves
) -> Promise | None:
    """The promise of the part of the ladder with which most can be kept, as far as the learning half tells.

    local: ways whose answers may be kept, in the order they are asked. strongest: the tier whose quality is the measure
    of an aim for quality. None where no label tells of that tier, or none shows anything.
    """
    shown = [row for row in half.shown if strongest is None or strongest in row]
    if not shown:
        return None
    local = [name for name in local if any(name in row for row in shown)]  # of the others nothing can be shown
    kept = _chosen(local, strongest, aim, half, len(shown))
    said = [
        {name: (calibrate.confidence(row[name].signals, calibrations.get(name)), row[name].correct)
         for name in local if name in row}
        for row in shown
    ]  # fmt: skip
    return Promise(_certified(kept, aim, said, _right(strongest, shown)), frozenset(kept))


def _chosen(local: Sequence[str], strongest: str | None, aim: Aim, half: Halves, n_shown: int) -> Sequence[str]:
    """Of equal parts of the ladder the first of `_parts`: the ladder as it is, if that is one of them."""
    as_asked = [True] * len(half.rows) + [item.plain for item in half.taught]
    pool = zip(*pooled(half.rows, half.taught), as_asked, strict=True)
    known = [each for each in pool if strongest in (None, *each[0])]
    if len(local) < 2 or not known:
        return local
    rows, counts = [row for row, _, _ in known], [n for _, n, _ in known]
    said, right = _unseen(local, rows, counts), _right(strongest, rows)
    dice = random.Random(SEED)
    chances = [n if plain else 0.0 for _, n, plain in known]  # an escalated item is no sample of what will be asked
    chances = chances if any(chances) else counts
    draws = [dice.choices(range(len(rows)), chances, k=min(MOST, n_shown)) for _ in range(DRAWS)]

    def coverage(part: Sequence[str]) -> float:
        drawn = ((([said[i] for i in at]), right and [right[i] for i in at]) for at in draws)
        found = [_certified(part, aim, *each) for each in drawn]
        return fmean(0.0 if each.threshold is None else each.coverage for each in found)

    return max(_parts(local), key=coverage)


def _parts(local: Sequence[str]) -> list[tuple[str, ...]]:
    """The whole ladder, its beginnings, each way alone, and the whole without one of them."""
    beginnings = [tuple(local[:n]) for n in range(len(local) - 1, 0, -1)]
    without = [tuple(name for name in local if name != other) for other in local]
    return list(dict.fromkeys([tuple(local), *beginnings, *((name,) for name in local), *without]))


def _unseen(local: Sequence[str], rows: Sequence[Mapping[str, Seen]], counts: Sequence[float]) -> list[Said]:
    """What the ways said of each item, with confidences of maps that were fitted on other items."""
    said: list[dict[str, tuple[float, bool]]] = [{} for _ in rows]
    for name in local:
        at = [i for i, row in enumerate(rows) if name in row]
        right = [rows[i][name].correct for i in at]
        sure = calibrate.cross_fitted([rows[i][name].signals for i in at], right, weights=[counts[i] for i in at])
        for i, each in zip(at, zip(sure, right, strict=True), strict=True):
            said[i][name] = each
    return list(said)


def _right(strongest: str | None, rows: Sequence[Mapping[str, Seen]]) -> list[bool] | None:
    return None if strongest is None else [row[strongest].correct for row in rows]


def _certified(names: Sequence[str], aim: Aim, said: Sequence[Said], strong: Sequence[bool] | None) -> Certificate:
    target = aim.quality if aim.error is None else aim.error
    assert target is not None
    rows = [[row[name] for name in names if name in row] for row in said]
    return certify_ladder(rows, target, aim.level, strong)
