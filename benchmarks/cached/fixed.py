"""The nearest earlier answer wherever its similarity reaches a fixed threshold, by whoever knows the best one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cached.outcome import Count, Outcome
from cached.stream import Held, Messages


def fixed(messages: Messages, order: NDArray[np.int_], threshold: float) -> Outcome:
    held, count, labels = Held(messages), Count(), messages.labels
    for place in order.tolist():
        near, similar = held.nearest(place, 1)
        if len(near) and similar[0] >= threshold:
            count.reuse(bool(labels[near[0]] != labels[place]))
            continue
        count.compute()
        held.add(place)
    return count.done()
