"""From a swarm file and its packs to an immutable graph of steps."""

from swarm.plan.build import build, load
from swarm.plan.plan import (
    Binding,
    Literal,
    MissingInput,
    Plan,
    PlannedStep,
    Ref,
    Text,
    Tier,
    resolve,
)

__all__ = [
    "Binding",
    "Literal",
    "MissingInput",
    "Plan",
    "PlannedStep",
    "Ref",
    "Text",
    "Tier",
    "build",
    "load",
    "resolve",
]
