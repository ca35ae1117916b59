"""Signals as the numbers that calibration weighs."""

from __future__ import annotations

import math

from protocols.answers import Signals

FEATURES = ("p", "margin", "entropy", "similarity", "agreement", "mean_logprob", "min_logprob")
CERTAIN = 1e-6  # how near to 0 or 1 a probability is told from certainty: strong models differ there still


def features(signals: Signals) -> dict[str, float]:
    """Every feature, 0 where the tier has no such signal. `p` as log-odds, log-probabilities as they are (nats)."""
    return {
        "p": 0.0 if signals.p is None else _logit(signals.p),
        "margin": signals.margin or 0.0,
        "entropy": signals.entropy or 0.0,
        "similarity": 0.0 if signals.similarity is None else 4.0 * (signals.similarity - 0.5),
        "agreement": 0.0 if signals.agreement is None else 2.0 * signals.agreement - 1.0,
        "mean_logprob": 0.0 if signals.mean_logprob is None else max(-8.0, signals.mean_logprob),
        "min_logprob": 0.0 if signals.min_logprob is None else max(-8.0, signals.min_logprob),
    }


def _logit(p: float) -> float:
    p = min(1 - CERTAIN, max(CERTAIN, p))
    return math.log(p / (1 - p))
