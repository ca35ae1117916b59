"""The scenarios of `benchmarks/budget.py`, each on every engine: nothing overspent, nothing hidden.

`SWARM_SPEND_SEEDS` says with how many seeds each is played.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from budget import PLAYED
from spending.books import ENGINES, Engine, Outcome
from spending.processes import programs

SEEDS = range(int(os.environ.get("SWARM_SPEND_SEEDS", "1")))


def check(outcome: Outcome) -> None:
    assert (outcome.overspent, outcome.hidden) == (0, 0), outcome
    assert outcome.granted > 0, "a budget that grants nothing is easily kept"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PLAYED)
def test_nothing_is_spent_that_is_not_there(name: str, engine: Engine) -> None:
    """Neither by crowds, duplicates and deaths, nor by fan-out, outages and wrong bills."""
    for seed in SEEDS:
        check(asyncio.run(PLAYED[name](engine, seed)))


@pytest.mark.parametrize("kind", ["sqlite", "leased"])
def test_programs_that_are_killed_overspend_nothing(kind: str) -> None:
    """Ten programs share one account; three of them are killed with holds open."""
    for seed in SEEDS:
        check(programs(kind, seed))
