"""The semantic cache's own gate, risk and votes over a shuffle; only the neighbours are found another way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cached.outcome import Count, Outcome
from cached.stream import Held, Messages
from swarm.dispatch.cache.gate import Gate
from swarm.dispatch.cache.neighbours import NEAREST, candidate
from swarm.dispatch.cache.risk import Risk


def ours(
    messages: Messages, order: NDArray[np.int_], coins: NDArray[np.float64], error: float, level: float
) -> Outcome:
    gate, risk, held, count = Gate(error, level), Risk(), Held(messages), Count()
    labels = messages.labels
    for place, coin in zip(order.tolist(), coins.tolist(), strict=True):
        near, similar = held.nearest(place, NEAREST)
        found = candidate(near, similar, labels[near]) if len(near) else None
        wrong = found is not None and bool(labels[found.row] != labels[place])
        chance = gate.chance(1.0 if found is None else risk.of(found.features))
        if coin >= chance:
            count.reuse(wrong)
            continue
        count.compute(looked=chance < 1.0)
        gate.audit.looked(chance)
        if found is not None:
            risk.learn(found.features, wrong)
            if not wrong:
                gate.audit.right(chance)
        held.add(place)
    return count.done()
