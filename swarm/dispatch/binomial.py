"""Exact tests and bounds for a rate of which so many cases among so many were seen (Clopper & Pearson 1934)."""

from __future__ import annotations

import math


def passes(errors: int, n: int, error: float, risk: float) -> bool:
    """Whether so few errors among `n` would be this unlikely, at most `risk`, were the true rate above `error`."""
    return n > 0 and risk > 0.0 and tail(errors, n, error) <= risk


def fewest(error: float, risk: float) -> int:
    """How many answers without one error show that the error is ≤ `error`."""
    return math.ceil(math.log(risk) / math.log1p(-error))


def upper_bound(errors: int, n: int, risk: float) -> float:
    """The exact upper bound on a rate that so many errors among `n` leave, wrong with probability ≤ `risk`."""
    if errors >= n:
        return 1.0
    low, high = errors / n, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if tail(errors, n, middle) > risk else (low, middle)
    return high


def lower_bound(hits: int, n: int, risk: float) -> float:
    """The exact lower bound on a rate that so many hits among `n` leave, wrong with probability ≤ `risk`."""
    return 1.0 - upper_bound(n - hits, n, risk)


def tail(k: int, n: int, p: float) -> float:
    """P(X ≤ k) for X binomial of `n` and `p`, summed from its largest term outwards."""
    if k >= n or p <= 0.0:
        return 1.0
    if k < 0 or p >= 1.0:
        return 0.0
    if k > n * p:
        return max(0.0, 1.0 - tail(n - k - 1, n, 1.0 - p))
    log_term = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    term = math.exp(log_term + k * math.log(p) + (n - k) * math.log1p(-p))
    total, odds = term, (1.0 - p) / p
    for i in range(k, 0, -1):
        term *= odds * i / (n - i + 1)
        total += term
        if term < 1e-17 * total:
            break
    return min(1.0, total)
