"""The program that drives a swarm is killed at some moment; what it had finished is there, and is not done again.

The oracle is outside the framework: the tools write a line for every call into a file. `SWARM_KILL_POINTS`: how often.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import swarm
from protocols.records import Attempt, RunRecord
from protocols.tasks import Result
from swarm.state.store import open_store

POINTS = range(int(os.environ.get("SWARM_KILL_POINTS", "3")))
ITEMS, STEPS = 60, ("one", "two", "three")

SWARM = """\
schema: swarm/v1
name: relay
specialists:
  work: {kind: tool, tools: work.py, input: [item, step, before], output_schema: {type: object, required: [said]}}
steps:
  one: {specialist: work, input: {item: "${input.item}", step: one, before: none}}
  two: {specialist: work, input: {item: "${input.item}", step: two, before: "${one.said}"}}
  three: {specialist: work, input: {item: "${input.item}", step: three, before: "${two.said}"}}
budget: {run: {tokens: 100000}}
runtime: {max_in_flight: 8}
"""
TOOLS = """\
import os, random, time

def run(item, step, before):
    time.sleep(random.uniform(0, 0.02))
    with open(LOG, "ab", buffering=0) as log:
        log.write(f"{item} {step}\\n".encode())
    return {"said": f"{before}>{step}"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "relay.yaml").write_text(SWARM)
    (tmp_path / "work.py").write_text(f"LOG = {str(tmp_path / 'calls.log')!r}\n{TOOLS}")
    (tmp_path / "items.jsonl").write_text("".join(json.dumps({"item": i}) + "\n" for i in range(ITEMS)))
    return tmp_path


def started(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = str(Path(sys.executable).with_name("swarm"))
    return subprocess.Popen(
        [command, *arguments, "--store", "s.db"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def calls(folder: Path) -> Counter[str]:
    log = folder / "calls.log"
    return Counter(log.read_text().splitlines()) if log.is_file() else Counter()


def kept(folder: Path) -> tuple[RunRecord, list[Attempt], list[Result]]:
    async def read() -> tuple[RunRecord, list[Attempt], list[Result]]:
        store = await open_store(folder / "s.db")
        try:
            await store.check()
            (run,) = await store.runs()
            return run, await store.attempts(run.id), await store.results(run.id)
        finally:
            await store.close()

    return asyncio.run(read())


@pytest.mark.parametrize(("seed", "number"), [*((seed, signal.SIGKILL) for seed in POINTS), (0, signal.SIGINT)])
def test_no_finished_step_is_done_again(folder: Path, seed: int, number: signal.Signals) -> None:
    """Killed, or interrupted, after a random number of calls, then `swarm resume`: every item is answered once."""
    driver = started(folder, "run", "relay.yaml", "-i", "items.jsonl", "-o", "out.jsonl")
    after = random.Random(seed).randrange(1, ITEMS * len(STEPS) - 20)
    deadline = time.monotonic() + 60
    while sum(calls(folder).values()) < after and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    driver.send_signal(number)
    driver.wait()
    run, attempts, _ = kept(folder)
    before = calls(folder)
    finished = {(a.task, a.step) for a in attempts if a.outcome == "accepted"}

    again = started(folder, "resume", run.id)
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said.decode()
    _, attempts, results = kept(folder)
    assert Counter((a.task, a.step) for a in attempts if a.outcome == "accepted").most_common(1)[0][1] == 1
    assert len(results) == ITEMS and {r.status for r in results} == {"done"}
    after_all = calls(folder)
    repeated = after_all - Counter(dict.fromkeys(after_all, 1))
    in_flight = 8  # steps that were under way: their end was not journalled
    assert sum(repeated.values()) <= in_flight, repeated
    assert all(before[call] for call in repeated), "a step was done twice after the restart"
    assert sum(after_all.values()) - sum(before.values()) == ITEMS * len(STEPS) - len(finished)
    written = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [line["item"] for line in written] == list(range(ITEMS))
    assert {line["swarm"]["output"]["three"]["said"] for line in written} == {"none>one>two>three"}


def test_an_input_that_has_changed_is_not_gone_on_with(folder: Path) -> None:
    """Results belong to lines by their places: with other lines there, they would go to the wrong ones."""
    driver = started(folder, "run", "relay.yaml", "-i", "items.jsonl", "-o", "out.jsonl")
    while sum(calls(folder).values()) < 3:
        time.sleep(0.001)
    driver.kill()
    driver.wait()
    (folder / "items.jsonl").write_text(json.dumps({"item": "new"}) + "\n" + (folder / "items.jsonl").read_text())
    again = started(folder, "resume", kept(folder)[0].id)
    _, said = again.communicate(timeout=60)
    assert again.returncode == 1 and "items.jsonl: has changed since run" in said.decode()


def test_a_run_that_is_worked_on_is_not_taken_up(folder: Path) -> None:
    """`swarm resume` of a run whose program lives is refused, and says who has it."""
    (folder / "items.jsonl").write_text("".join(json.dumps({"item": i}) + "\n" for i in range(5_000)))
    driver = started(folder, "run", "relay.yaml", "-i", "items.jsonl", "-o", "out.jsonl")
    while sum(calls(folder).values()) < 3:
        time.sleep(0.001)
    other = started(folder, "resume", kept(folder)[0].id)
    _, said = other.communicate(timeout=60)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(timeout=60) == 130
    assert other.returncode == 1 and f"is worked on by process {driver.pid}" in said.decode()


def test_a_swarm_that_was_asked_cannot_take_up_another_run(folder: Path) -> None:
    """`resume` is for a swarm that has not begun a run of its own; it says so, and names both."""
    with swarm.launch(folder / "relay.yaml", store=folder / "s.db") as s:
        s.run_sync({"item": 1})
        with pytest.raises(swarm.SwarmError, match="has not been asked anything yet"):
            s.resume_sync("r-0")
