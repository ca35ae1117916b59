"""Whatever goes wrong, in whatever order: nothing is lost, nothing is paid twice, nothing is overspent.

`SWARM_SIMULATIONS` says how many seeds are played. One that fails is repeated by `python -m swarm.simulation SEED`.
"""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.dispatch.again import Past
from swarm.runtime import run as run_module
from swarm.simulation.play import play, played, quiet
from swarm.simulation.scenario import TROUBLES, Fault, Scenario, drawn
from swarm.state.account import Account
from swarm.state.memory import MemoryStore

SEEDS = int(os.environ.get("SWARM_SIMULATIONS", "300"))

TIMES = st.integers(0, 400).map(lambda n: n / 100)
FAULTS = st.builds(Fault, st.sampled_from(TROUBLES), TIMES, TIMES, st.integers(0, 2))
SCENARIOS = st.builds(
    Scenario, seed=st.integers(0, 2**32), tasks=st.integers(1, 8), hosts=st.integers(1, 3), steps=st.integers(1, 4),
    chained=st.booleans(), in_flight=st.integers(1, 5), run_tokens=st.sampled_from([None, 1_000, 10_000]),
    run_micro_usd=st.sampled_from([None, 300, 3_000]),
    faults=st.lists(FAULTS, max_size=6).map(tuple),
)  # fmt: skip


def test_no_promise_is_broken() -> None:
    """Seed after seed: one terminal state a task, no finished step asked again, balances that the entries give."""
    with quiet():
        broken = {seed: wrong for seed in range(SEEDS) if (wrong := played(drawn(seed)))}
    assert not broken


def test_no_scenario_breaks_a_promise() -> None:
    """The same for scenarios that are looked for, and made as small as they can be when one fails."""

    @settings(max_examples=max(100, SEEDS // 10))
    @given(SCENARIOS)
    def keeps(scenario: Scenario) -> None:
        assert played(scenario) == []

    with quiet():
        keeps()


def test_a_scenario_plays_the_same_way_every_time() -> None:
    """Else a failing seed could not be looked into."""
    stories: list[list[Any]] = []
    real = MemoryStore.draw

    async def draw(self: MemoryStore, lease: str, run: str, draws: Any) -> None:
        stories[-1].append([(d.attempt.id, d.attempt.step, d.attempt.tier, d.attempt.outcome) for d in draws])
        await real(self, lease, run, draws)

    with patch.object(MemoryStore, "draw", draw):
        for _ in range(2):
            stories.append([])
            play(DEATHS)
    assert stories[0] and stories[0] == stories[1]


# --- a simulation that cannot fail would prove nothing: each of these mistakes is found

DEATHS = Scenario(
    seed=7, tasks=6, hosts=2, steps=3,
    faults=tuple(Fault("driver_dies", at) for at in (0.9, 1.7, 2.6, 3.9)),
)  # fmt: skip
SHORT = Scenario(seed=3, tasks=8, hosts=2, steps=2, in_flight=5, run_tokens=1_000)


def found(scenario: Scenario) -> str:
    return "\n".join(play(scenario))


def test_a_program_that_forgets_its_journal_is_found_out() -> None:
    """Without what was journalled, steps that were over are asked again."""
    with patch.object(run_module, "Past", lambda attempts, missing: Past([], missing)):
        assert "was finished 2 times" in found(DEATHS)


def test_a_program_that_loses_tasks_is_found_out() -> None:
    """A task that was accepted and is not gone on with has no terminal state."""

    async def nothing(*_: object) -> list[Any]:
        return []

    with patch.object(run_module, "_unfinished", nothing):
        assert "has 0 terminal states" in found(DEATHS)


def test_a_ledger_that_lets_too_much_through_is_found_out() -> None:
    """What is refused by nobody goes beyond the limit."""
    assert found(SHORT) == ""
    with patch.object(Account, "refuses", lambda *_: None):
        assert ">" in found(SHORT)


def test_a_hold_that_nobody_ends_is_found_out() -> None:
    """What is still held at the end is told."""

    async def keep(*_: object, **__: object) -> None:
        """Forget to end it."""

    with patch.object(MemoryStore, "give_back", keep), patch.object(MemoryStore, "end", keep):
        assert "still held" in found(SHORT)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_every_trouble_befalls_somebody(trouble: Any) -> None:
    """Each kind of fault is among the first seeds, so that none is left out by mistake."""
    assert any(fault.trouble == trouble for seed in range(20) for fault in drawn(seed).faults)
