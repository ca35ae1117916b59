"""Messages that raise, crash or stop their host: given up after three attempts, and only they.

`SWARM_FAULT_TASKS` says how many neighbours they have.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from host_faults import Field, no_fault, said

pytestmark = [pytest.mark.live, pytest.mark.slow]

TASKS = int(os.environ.get("SWARM_FAULT_TASKS", "200"))
CAUSES = {
    "raises": "this one cannot be looked at",
    "crashes": "is gone",
    "hangs": "has not been heard",
}


@pytest.mark.parametrize("kind", CAUSES)
def test_poison_ends_in_the_dead_letters(tmp_path: Path, kind: str, pytestconfig: pytest.Config) -> None:
    """After three deliveries, with its cause; every neighbour is answered."""
    field = Field(tmp_path, hosts=3, seconds=0.3, writes=False)
    story = field.play([*["works"] * (TASKS // 2), kind, *["works"] * (TASKS // 2)], no_fault)
    said(pytestconfig, story.figures(f"a message that {kind}"))
    assert story.audit is not None and story.statistics is not None
    poison = f"{kind}-{TASKS // 2}"
    assert story.audit.problems == []
    assert story.of(poison).status == "failed"
    assert [r for r in story.unexplained if r != story.of(poison)] == []
    assert story.audit.effects[f"look:{poison}"] == 3
    (letter,) = (each for each in story.statistics.dead_letters if getattr(each.envelope.body, "step", "") == "look")
    assert letter.envelope.delivery == 3
    assert CAUSES[kind] in letter.cause
