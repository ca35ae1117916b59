"""`swarm calibrate --from-runs`: what earlier runs have taught becomes a calibration, with no model loaded."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from protocols.answers import Earlier, Signals
from swarm.cli.calibrate import Request, calibrate_swarm
from swarm.dispatch.lasting import Lasting, scope_of
from swarm.dispatch.learnt import Learnt, beside, load
from swarm.dispatch.lessons import Lesson, Lessons
from swarm.errors import CalibrationError
from swarm.runtime.launch import planned
from swarm.state.sqlite import SqliteStore

SWARM = """\
schema: swarm/v1
name: mood
models:
  head: all-MiniLM-L6-v2
  remote: {model: gpt, base_url: "https://a.example/v1", api_key: "${env:NO_SUCH_KEY}", price: {input: 1, output: 2}}
specialists:
  mood:
    kind: classify
    labels: {happy: pleased, unhappy: upset}
    examples: {happy: [Thank you, Lovely, Great], unhappy: [It broke, No reply, What a mess]}
    tiers: [head, remote, person]
steps: {mood: {specialist: mood, input: {text: "${input.text}"}}}
escalation: {target: {error: 0.05}, explore: 0.1}
budget: {explore: {usd: 1}}
"""
HAPPY, UNHAPPY = {"label": "happy"}, {"label": "unhappy"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mood.yaml").write_text(SWARM)
    return tmp_path / "mood.yaml"


def request(file: Path, *, from_runs: bool = True) -> Request:
    return Request(
        file=file, data=None, output=None, plot=None, paid=False, store=str(file.with_name("s.db")), progress=False,
        from_runs=from_runs,
    )  # fmt: skip


async def ran(file: Path, n: int, *, explored: int = 0, seed: int = 1) -> None:
    """A run's lessons: `n` answers escalated and `explored` were looked behind, right as often as the head says."""
    plan, dice = planned(file), random.Random(seed)
    store = await SqliteStore.open(file.with_name("s.db"))
    lessons = Lessons(Lasting(store.records, scope_of(plan), models={"head": "h1"}))
    for i in range(n + explored):
        p = dice.choice((0.6, 0.8, 0.999)) if i < n else 0.999
        lessons.add(
            Lesson(
                step="mood",
                answers_hash=plan.steps[0].answers_hash,
                task=f"t-{i:05}",
                input={"text": "hi"},
                said=(Earlier("head", HAPPY, Signals(p=p)),),
                teacher="remote",
                output=HAPPY if dice.random() < p else UNHAPPY,
                propensity=1.0 if i < n else 0.1,
                floor=0.1 if explored else 1.0,
                models={"head": "h1"},
            )
        )
    await lessons.close()
    await store.close()


def calibrated(file: Path) -> Learnt:
    calibrate_swarm(request(file))
    return load(beside(file))


def test_runs_make_a_calibration_that_says_whose_word_it_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every lesson is in the file with its teacher and its chance; the effective number is printed."""
    asyncio.run(ran(file, 300, explored=40))
    learnt = calibrated(file)
    labels = learnt.steps["mood"]
    assert (labels.rows, len(labels.taught), labels.teacher) == ((), 340, "remote")
    assert {item.propensity for item in labels.taught} == {1.0, 0.1}
    assert learnt.data is None and learnt.runs is not None and learnt.runs.items == 340
    assert learnt.models == {"head": "h1"}
    said = " ".join(capsys.readouterr().out.split())
    assert "40 answers that were kept and 300 that escalated are worth 114 labels" in said
    assert "right means there that tier 'remote' said the same, which may err" in said
    assert "340 (worth 114)" in said


def test_labels_of_one_kind_count_plainly(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where everything escalated every label is worth one."""
    asyncio.run(ran(file, 60))
    assert all(item.plain for item in calibrated(file).steps["mood"].taught)
    assert "0 answers that were kept and 60 that escalated are worth 60 labels" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize(
    ("from_runs", "said"),
    [
        (True, "no run of 'mood' as it is now has left labels in the store"),
        (False, "give --data FILE, --from-runs, or both"),
    ],
)
def test_nothing_to_learn_from_says_what_would_help(file: Path, from_runs: bool, said: str) -> None:
    """No run, or neither of the two ways; no file is written."""
    with pytest.raises(CalibrationError, match=said):
        calibrate_swarm(request(file, from_runs=from_runs))
    assert not beside(file).exists()


def test_a_pack_that_has_changed_leaves_its_runs_behind(file: Path) -> None:
    """What was said by another pack says nothing about this one."""
    asyncio.run(ran(file, 60))
    file.write_text(SWARM.replace("What a mess", "What a shame"))
    with pytest.raises(CalibrationError, match="as it is now"):
        calibrate_swarm(request(file))
