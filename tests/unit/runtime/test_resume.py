"""Which runs are gone on with, and which are refused: a task is decided to its end by the rules it was begun with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from swarm.errors import StoreError
from swarm.testing import Says, Script, launch_scripted

SWARM = """\
schema: swarm/v1
name: mood
models: {head: all-MiniLM-L6-v2}
specialists:
  mood:
    kind: classify
    labels: {happy: pleased, sad: not pleased}
    examples: {happy: [Thanks, Lovely], sad: [Oh no, What a mess]}
    tiers: [head]
steps: {mood: {specialist: mood, input: {text: "${input.text}"}}}
"""


@pytest.fixture
def begun(tmp_path: Path) -> tuple[Path, Path, str]:
    """A swarm file, a store, and a run in it that has answered one item."""
    file, store = tmp_path / "mood.yaml", tmp_path / "s.db"
    file.write_text(SWARM)
    with launch_scripted(file, Script({"mood": [Says({"label": "happy"}, confidence=0.99)]}), store=store) as running:
        running.run_sync({"text": "a"})
        return file, store, running.run_id


def resumed(file: Path, store: Path, run: str) -> list[Any]:
    with launch_scripted(file, Script({"mood": []}), store=store) as running:
        return running.resume_sync(run)


def test_a_run_of_the_same_rules_is_gone_on_with(begun: tuple[Path, Path, str]) -> None:
    """What it had answered is there, and asked nobody."""
    (result,) = resumed(*begun)
    assert (result.status, result.output) == ("done", {"mood": {"label": "happy"}})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda about: about | {"learnt": "0" * 64}, "decided by another calibration than none"),
        (lambda about: about | {"rules": "0" * 64}, "decided by other thresholds than this version"),
    ],
)
def test_a_run_of_other_rules_is_refused(
    begun: tuple[Path, Path, str], change: Callable[[dict[str, Any]], dict[str, Any]], said: str
) -> None:
    """Another calibration, or other thresholds made of the same one, might reopen steps that others were built on."""
    file, store, run = begun
    with apsw.Connection(str(store)) as db:
        about = msgspec.json.decode(db.execute("SELECT about FROM runs WHERE id = ?", (run,)).get)
        db.execute("UPDATE runs SET about = ? WHERE id = ?", (msgspec.json.encode(change(about)).decode(), run))
    with pytest.raises(StoreError, match=f"{run}.*{said}"):
        resumed(file, store, run)


def test_a_run_of_another_plan_is_refused(begun: tuple[Path, Path, str]) -> None:
    """The file is to be put back as it was."""
    file, store, run = begun
    file.write_text(SWARM.replace("not pleased", "sad"))
    with pytest.raises(StoreError, match=f"{run}.*was made by plan"):
        resumed(file, store, run)
