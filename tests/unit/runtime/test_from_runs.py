"""A swarm under a target learns from its own runs: all escalates, what that taught is certified, and then watched."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from protocols.answers import Ask
from swarm.cli.calibrate import Request, calibrate_swarm
from swarm.dispatch.learnt import beside, load
from swarm.testing import Says, launch_scripted

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
    tiers: [head, remote]
steps: {mood: {specialist: mood, input: {text: "${input.text}"}}}
escalation: {target: {error: 0.05}, explore: 0.5}
budget: {explore: {usd: 1}}
"""
HAPPY, UNHAPPY = {"label": "happy"}, {"label": "unhappy"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mood.yaml").write_text(SWARM)
    return tmp_path / "mood.yaml"


def world(wrong_when_sure: float, seed: int) -> object:
    """A head that is sure of half the messages: the remote tier contradicts it as often as said, else half the time."""
    dice, truth = random.Random(seed), {}

    def answer(ask: Ask) -> Says:
        if ask.tier == "head":
            p = dice.choice((0.6, 0.99))
            truth[ask.input["text"]] = dice.random() < (wrong_when_sure if p > 0.9 else 0.5)
            return Says(HAPPY, p)
        return Says(UNHAPPY if truth[ask.input["text"]] else HAPPY, 0.95)

    return answer


def tiers(file: Path, n: int, wrong_when_sure: float, seed: int) -> list[str | None]:
    """Which tier's answers were kept in a run of `n` messages."""
    with launch_scripted(file, world(wrong_when_sure, seed), store=file.with_name("s.db")) as swarm:  # type: ignore[arg-type]
        return [r.steps["mood"].tier for r in swarm.map_sync([{"text": f"{seed}/{i}"} for i in range(n)])]


def calibrate(file: Path) -> None:
    store = str(file.with_name("s.db"))
    calibrate_swarm(Request(file, None, None, None, False, store, False, from_runs=True))


def test_a_swarm_is_certified_by_its_own_runs_and_watched_over_them(file: Path) -> None:
    """Nothing local is kept until its runs have shown what may be; once that breaks, no later run keeps anything."""
    assert set(tiers(file, 500, 0.0, seed=1)) == {"remote"}
    calibrate(file)
    taught = load(beside(file)).steps["mood"].taught
    assert len(taught) == 500 and all(item.plain and item.propensity == 1.0 for item in taught)
    kept = tiers(file, 60, 0.0, seed=2)
    assert 20 < kept.count("head") < 40
    broken = tiers(file, 200, 0.6, seed=3)
    assert broken.count("head") < 90, "after some of them were looked behind the rest escalates"
    assert set(tiers(file, 20, 0.0, seed=4)) == {"remote"}
    calibrate(file)
    counted = load(beside(file)).steps["mood"].taught
    assert {item.propensity for item in counted} == {1.0, 0.5} and len(counted) > 700
