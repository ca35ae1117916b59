"""Every cache over the same shuffles of one set, and what came of it as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cached.fixed import fixed
from cached.ours import ours
from cached.outcome import Outcome, kept, kept_always
from cached.stream import Messages
from cached.vcache import vcache

SEED = 17
THRESHOLDS = tuple(round(0.70 + 0.01 * i, 2) for i in range(25))  # that are tried for the best fixed one
SCOUTS = 10  # shuffles that say which thresholds come near the promise
COLUMNS = ("set", "cache", "hits", "5% to 95%", "wrong of all", "at most", "wrong of reuses", "kept", "kept always",
           "looked at")  # fmt: skip


@dataclass(frozen=True)
class Promise:
    error: float
    level: float


def compared(
    messages: Messages, promise: Promise, shuffles: int, tell: Callable[[int], None]
) -> dict[str, list[Outcome]]:
    """Cache -> one outcome a shuffle. The fixed threshold is the one with the most hits of those that keep the promise
    in a share `level` of the shuffles, chosen by all of them: nobody could know it before."""
    found: dict[str, list[Outcome]] = {"ours": [], "vCache": []}
    thresholds = _near(messages, promise)
    by_threshold: dict[float, list[Outcome]] = {t: [] for t in thresholds}
    for i in range(shuffles):
        dice = np.random.default_rng([SEED, i])
        order, coins = dice.permutation(len(messages)), dice.random(len(messages))
        found["ours"].append(ours(messages, order, coins, promise.error, promise.level))
        found["vCache"].append(vcache(messages, order, coins, promise.error))
        for threshold in thresholds:
            by_threshold[threshold].append(fixed(messages, order, threshold))
        tell(i + 1)
    valid = {t: done for t, done in by_threshold.items() if kept(done, promise.error) >= promise.level}
    if valid:
        best = max(valid, key=lambda t: _mean(o.hits for o in valid[t]))
        found[f"fixed at {best:.2f}"] = valid[best]
    return found


def _near(messages: Messages, promise: Promise) -> list[float]:
    """Thresholds whose error, by a few other shuffles, comes near the promised one."""
    near = []
    for threshold in THRESHOLDS:
        orders = (np.random.default_rng([SEED + 1, i]).permutation(len(messages)) for i in range(SCOUTS))
        error = _mean(fixed(messages, order, threshold).error for order in orders)
        if 0.6 * promise.error <= error <= 1.1 * promise.error:
            near.append(threshold)
    return near


def rows(name: str, found: Mapping[str, Sequence[Outcome]], error: float) -> Iterator[tuple[str, ...]]:
    for cache, outcomes in found.items():
        hits = sorted(o.hits for o in outcomes)
        low, high = (hits[round(q * (len(hits) - 1))] for q in (0.05, 0.95))
        shares = (kept(outcomes, error), kept_always(outcomes, error))
        yield (
            name, cache, f"{_mean(hits):.1%}", f"{low:.1%} to {high:.1%}", f"{_mean(o.error for o in outcomes):.2%}",
            f"{max(o.error for o in outcomes):.2%}", f"{_mean(o.error_of_reuses for o in outcomes):.2%}",
            *(f"{share:.1%}" for share in shares), f"{_mean(o.looked / o.requests for o in outcomes):.1%}",
        )  # fmt: skip


def _mean(values: Iterator[float] | Sequence[float]) -> float:
    listed = list(values)
    return sum(listed) / max(1, len(listed))
