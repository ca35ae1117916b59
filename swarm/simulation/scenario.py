"""What goes wrong, and when: a plain value, so that a failing one can be kept, repeated and made smaller."""

from __future__ import annotations

import random
from typing import Literal

import msgspec

Trouble = Literal["host_dies", "host_hangs", "store_full", "driver_dies"]
TROUBLES: tuple[Trouble, ...] = ("host_dies", "host_hangs", "store_full", "driver_dies")
HORIZON_S = 4.0  # of virtual time, in which things go wrong


class Fault(msgspec.Struct, frozen=True):
    """`at` and `lasts` in virtual seconds. `host`: which one, where one is meant."""

    trouble: Trouble
    at: float
    lasts: float = 0.0
    host: int = 0


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """`seed` decides delays, answers, duplicates and the order in which messages come. Budget in tokens; money in
    micro-dollars.
    """

    seed: int
    tasks: int = 6
    hosts: int = 2
    steps: int = 3
    chained: bool = True  # each step reads the one before it
    in_flight: int = 4
    run_tokens: int | None = None
    run_micro_usd: int | None = None
    faults: tuple[Fault, ...] = ()


def drawn(seed: int) -> Scenario:
    """The scenario of a seed."""
    rng = random.Random(seed)
    faults = tuple(
        Fault(rng.choice(TROUBLES), round(rng.uniform(0, HORIZON_S), 3), round(rng.expovariate(4), 3), rng.randrange(3))
        for _ in range(rng.randrange(7))
    )
    return Scenario(
        seed=seed, tasks=rng.randrange(1, 9), hosts=rng.randrange(1, 4), steps=rng.randrange(1, 5),
        chained=rng.random() < 0.6, in_flight=rng.randrange(1, 6),
        run_tokens=rng.choice([None, None, 2_000, 20_000]), run_micro_usd=rng.choice([None, 500, 5_000]),
        faults=faults,
    )  # fmt: skip
