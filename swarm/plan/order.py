"""Steps in an order in which each comes after what it needs."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from swarm.plan.plan import PlannedStep


def in_order(steps: Sequence[PlannedStep]) -> tuple[PlannedStep, ...]:
    """Topological order; of the steps that could come next, always the first given. There must be no cycle."""
    place = {step.name: i for i, step in enumerate(steps)}
    waiting = {step.name: len(step.needs) for step in steps}
    dependents: dict[str, list[str]] = {step.name: [] for step in steps}
    for step in steps:
        for needed in step.needs:
            dependents[needed].append(step.name)
    ready = [place[name] for name, count in waiting.items() if count == 0]
    ordered: list[PlannedStep] = []
    while ready:
        step = steps[heapq.heappop(ready)]
        ordered.append(step)
        for name in dependents[step.name]:
            waiting[name] -= 1
            if waiting[name] == 0:
                heapq.heappush(ready, place[name])
    assert len(ordered) == len(steps), "a cycle got past the checks"
    return tuple(ordered)
