"""Tuning a real model, with little time: what comes out is asserted, never how fast."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from protocols.work import EngineSpec, Prompt, ScoreRequest, Turn
from swarm.engine.llama.tune.measure import Job, Measured
from swarm.engine.llama.tune.search import tune
from swarm.errors import EngineCrashed, EngineError, OutOfTime
from swarm.models.manifest import Manifest, read_manifest, write_manifest
from swarm.models.store import PUBLISHED, ModelStore
from swarm.models.tuned import TuneWishes, keep, kept, opening

pytestmark = pytest.mark.live

NAME = "smollm2-135m-instruct"
JOB = Job(score=(ScoreRequest(Prompt((Turn("user", "Is it late?"),)), (" yes", " no")),))

TUNE = """
import sys
from pathlib import Path
from swarm.engine.llama.tune.search import tune
from swarm.models.store import ModelStore
from swarm.models.tuned import TuneWishes

wishes = TuneWishes(threads=1, budget_s=60, formats=("Q4_0",))
tune(ModelStore(Path(sys.argv[1])), "smollm2-135m-instruct", wishes, lambda text: print(text, flush=True))
"""


@pytest.fixture
def store(tmp_path: Path, smollm2_path: str) -> ModelStore:
    """A store with nothing but SmolLM2 as it is published, linked so that it costs no time."""
    there = Path(smollm2_path).parent
    store = ModelStore(tmp_path)
    folder = store.folder(NAME)
    folder.mkdir(parents=True)
    manifest = read_manifest(there, NAME)
    (published,) = (record for record in manifest.files if record.made_from is None)
    os.link(there / published.name, folder / published.name)
    write_manifest(folder, Manifest(model=NAME, files=(published,)))
    return store


def test_a_tuning_run_keeps_to_its_time_and_leaves_one_choice(store: ModelStore) -> None:
    """All stages are in the table, the published answers are the measure, and the choice is what is opened next."""
    started = time.monotonic()
    wishes = TuneWishes(threads=1, budget_s=20, allow_changed_answers=True, formats=("Q8_0",))
    result = tune(store, NAME, wishes, lambda text: None)
    assert time.monotonic() - started < 20 + 5, "the budget, and room for a slow machine to end processes"
    published, other = (row for row in result.rows if row.stage == "format")
    assert (published.setting.format, published.changed) == (PUBLISHED, 0)
    assert (published.problem, other.setting.format) == (None, "Q8_0")
    assert [row.stage for row in result.rows if row.setting.kv_format == "q8_0"] == ["attention"]
    for row in result.rows:
        assert (row.problem is None) == (row.messages is not None and row.messages > 0)
        assert row.setting.threads == 1
    assert not (store.folder(NAME) / ".tuning").exists()
    assert store.formats(NAME) == {PUBLISHED, result.chosen.format}
    keep(store, result)
    assert kept(store, result.model_hash) == result
    files, setting = opening(store, NAME, 1)
    assert (setting, files) == (result.chosen, store.path(NAME, result.chosen.format))


def test_an_interrupted_run_leaves_everything_as_it_was(store: ModelStore) -> None:
    """Ctrl-C in the middle: no process, no file, no choice is left."""
    before = {path: path.stat().st_mtime_ns for path in store.folder(NAME).iterdir()}
    command = [sys.executable, "-c", TUNE, str(store.root.parent)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert any("round 1" in line for line in child.stdout)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=30)
    assert child.returncode != 0
    assert {path: path.stat().st_mtime_ns for path in store.folder(NAME).iterdir()} == before
    assert not list((store.root.parent / "tuned").glob("*.json"))


def test_a_crash_while_measuring_is_an_error_with_its_cause(smollm2_path: str) -> None:
    """A kernel that kills its process is named by its signal; a time that is over is not waited for."""
    measured = Measured(EngineSpec(smollm2_path, "chatml"), time.monotonic() + 60)
    try:
        assert len(measured.run(JOB, time.monotonic() + 60).scored) == 1
        os.kill(measured._child.pid, signal.SIGSEGV)
        with pytest.raises(EngineCrashed, match="SIGSEGV"):
            measured.run(JOB, time.monotonic() + 60)
    finally:
        measured.close()
    with pytest.raises(OutOfTime):
        Measured(EngineSpec(smollm2_path, "chatml"), time.monotonic())
    with pytest.raises(EngineError, match="flash"):
        Measured(EngineSpec(smollm2_path, "chatml", flash_attention=False, kv_format="q8_0"), time.monotonic() + 60)
