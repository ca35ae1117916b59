"""SIGKILL between the steps of a write: what was written is written once, and what is not known is said.

`SWARM_KILL_SEEDS` says with how many seeds each point is tried.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import effects_killed
import pytest

from protocols.answers import Answer, Failed
from swarm.state.sqlite import SqliteStore

SEEDS = int(os.environ.get("SWARM_KILL_SEEDS", "3"))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what every killed program has left."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, effects_killed.__file__, str(folder), str(SEEDS)]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=3000)
    ends = [line.split() for line in made.stdout.splitlines()]
    assert len(ends) == len(effects_killed.KINDS) * len(effects_killed.POINTS) * SEEDS
    assert {end for *_, end in ends} == {"-9"}, "every program came to its point"
    return folder


async def go_on(base: Path, kind: str) -> tuple[list[Answer | Failed], Counter[str]]:
    """The same writes asked again, as by `swarm resume`, and how often the tool was called in all, by key."""
    store = await SqliteStore.open(base.with_suffix(".db"))
    try:
        replies = await effects_killed.write(store.records, base.with_suffix(".world"), kind)
    finally:
        await store.close()
    return replies, Counter(base.with_suffix(".world").read_text().split())


@pytest.mark.parametrize("point", effects_killed.POINTS)
def test_write_is_never_made_twice(killed: Path, point: str) -> None:
    """After the resume each write was made once, or is said to be unknown; unknown are at most those under way."""
    for seed in range(SEEDS):
        replies, calls = asyncio.run(go_on(killed / f"once-{point}-{seed}", "once"))
        unknown = [reply for reply in replies if isinstance(reply, Failed)]
        assert {reply.reason for reply in unknown} <= {"unknown_effect"}
        assert set(calls.values()) <= {1}, "nothing was written twice"
        answered = effects_killed.TASKS - len(unknown)
        assert answered <= len(calls) <= effects_killed.TASKS, "what is answered was written"
        assert len(unknown) >= 1 or point == "noted"


@pytest.mark.parametrize("point", effects_killed.POINTS)
def test_idempotent_write_is_finished_under_its_key(killed: Path, point: str) -> None:
    """Every write is answered in the end, and the tool knows each repetition by its key."""
    for seed in range(SEEDS):
        replies, calls = asyncio.run(go_on(killed / f"idempotent-{point}-{seed}", "idempotent"))
        assert all(isinstance(reply, Answer) for reply in replies)
        assert len(calls) == effects_killed.TASKS and set(calls.values()) <= {1, 2}
