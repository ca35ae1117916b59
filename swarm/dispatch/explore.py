"""Looking behind accepted answers: which are also sent up, and what labels found that way are worth.

Labels come from answers that escalated anyway (all of the unsure ones) and from a random share of the accepted ones.
Counted plainly they would make a tier look worse than it is. Each label is therefore weighed by one over the chance
that it was seen (Horvitz & Thompson 1952), that chance, the propensity, being logged with the decision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

MOST_WEIGHT = 50.0  # one label never counts for more than this many: a little bias against a great variance


def shadowed(task_id: str, step: str, epsilon: float, seed: int = 0) -> bool:
    """Whether this accepted answer is also sent up: true for a share `epsilon`, the same at every replay."""
    return uniform(task_id, step, seed) < epsilon


def uniform(task_id: str, step: str, seed: int = 0) -> float:
    """A number in [0, 1) that looks random and depends on nothing but its arguments."""
    digest = hashlib.blake2b(f"{seed}\0{task_id}\0{step}".encode(), digest_size=8, person=b"shadowed").digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53  # as many bits as a float holds, so that 1.0 never comes


def propensity(accepted: bool, epsilon: float) -> float:
    """The chance with which the truth about an answer is seen: 1 if it escalated, else the share that is shadowed."""
    return epsilon if accepted else 1.0


def in_plain_sample(task_id: str, step: str, chance: float, floor: float, seed: int = 1) -> bool:
    """Whether a label, seen with this `chance`, belongs to a plain sample of all that was asked, each with `floor`.

    Exact bounds count labels and know no weights. Those that were seen with more than the least chance, `floor`, are
    therefore thinned to it by another coin (rejection sampling, von Neumann 1951), the same at every replay.
    """
    return uniform(task_id, step, seed) * chance < floor


def weights(propensities: Sequence[float], most: float = MOST_WEIGHT) -> list[float]:
    """One over each propensity, clipped at `most`.

    Where a weight is clipped (a share below 1/`most` is shadowed) the sample leans towards unsure answers again, which
    errs on the side of caution; `clipped` counts how many. Raises `ValueError` for a propensity outside (0, 1].
    """
    for p in propensities:
        if not 0.0 < p <= 1.0:
            raise ValueError(f"a propensity is {p}; the chance to see a label lies above 0 and is at most 1")
    return [min(most, 1.0 / p) for p in propensities]


def clipped(propensities: Sequence[float], most: float = MOST_WEIGHT) -> int:
    """How many weights `weights` would clip."""
    return sum(1.0 / p > most for p in propensities)


def effective(weights: Sequence[float]) -> float:
    """What weighted labels are worth in plain ones: (Σw)² / Σw² (Kish 1965)."""
    squares = sum(w * w for w in weights)
    return sum(weights) ** 2 / squares if squares else 0.0
