"""The program that drives a swarm is killed while its tools write; after the resume nothing was written twice.

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
from pathlib import Path

import pytest
from auditor import LOGGED, Audit, audit, effects_of

from protocols.tasks import Result
from swarm.dispatch.outbox import Outbox
from swarm.state.store import open_store

POINTS = range(int(os.environ.get("SWARM_KILL_POINTS", "3")))
ITEMS, AT_ONCE = 60, 8

SWARM = """\
schema: swarm/v1
name: payments
specialists:
  amount: {{kind: tool, tools: amount.py, input: [item], output_schema: {{type: object, required: [cents]}}}}
  pay:
    kind: tool
    tools: pay.py
    input: [item, cents]
    effects: write
    idempotent: {idempotent}
    output_schema: {{type: object, required: [paid]}}
    tiers: [code, person]
steps:
  amount: {{specialist: amount, input: {{item: "${{input.item}}"}}}}
  pay: {{specialist: pay, input: {{item: "${{input.item}}", cents: "${{amount.cents}}"}}}}
runtime: {{max_in_flight: {at_once}}}
"""
AMOUNT = "def run(item):\n    return {'cents': 100 * item}\n"
PAY = """\
import random, time

def run(item, cents, idempotency_key):
    time.sleep(random.uniform(0, 0.02))
    logged(idempotency_key)
    time.sleep(random.uniform(0, 0.02))
    return {"paid": idempotency_key}
"""


def made(folder: Path, idempotent: bool) -> Path:
    (folder / "payments.yaml").write_text(SWARM.format(idempotent=str(idempotent).lower(), at_once=AT_ONCE))
    (folder / "amount.py").write_text(AMOUNT)
    (folder / "pay.py").write_text(f"LOG = {str(folder / 'world')!r}\n{LOGGED}{PAY}")
    (folder / "items.jsonl").write_text("".join(json.dumps({"item": i}) + "\n" for i in range(ITEMS)))
    return folder


def started(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = str(Path(sys.executable).with_name("swarm"))
    return subprocess.Popen(
        [command, *arguments, "--store", "s.db"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def killed_and_resumed(folder: Path, seed: int) -> str:
    """The run's id, after the program was killed amid its writes and the run was gone on with."""
    driver = started(folder, "run", "payments.yaml", "-i", "items.jsonl", "-o", "out.jsonl")
    after = random.Random(seed).randrange(1, ITEMS - 2 * AT_ONCE)
    deadline = time.monotonic() + 60
    while effects_of(folder / "world").total() < after and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert driver.returncode == -signal.SIGKILL
    (run,) = in_store(folder)[0]
    again = started(folder, "resume", run)
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said.decode()
    return run


def in_store(folder: Path, run: str | None = None) -> tuple[list[str], list[Result], dict[str, str]]:
    """The runs' ids; of one of them the results, and the states of its writes by key."""

    async def read() -> tuple[list[str], list[Result], dict[str, str]]:
        store = await open_store(folder / "s.db")
        try:
            runs = [record.id for record in await store.runs()]
            if run is None:
                return runs, [], {}
            effects = await Outbox(store.records, run).all()
            return runs, await store.results(run), {key: effect.state for key, (_, effect) in effects.items()}
        finally:
            await store.close()

    return asyncio.run(read())


def audited(folder: Path, run: str, writes: list[str]) -> Audit:
    found = asyncio.run(audit(folder / "s.db", run, folder / "world", writes))
    assert found.problems == [] and found.accepted == ITEMS
    return found


@pytest.mark.parametrize("seed", POINTS)
def test_no_write_is_made_twice(tmp_path: Path, seed: int) -> None:
    """What was under way when the program died ends with a person, who is told which; all else was paid once."""
    folder = made(tmp_path, idempotent=False)
    run = killed_and_resumed(folder, seed)
    _, results, states = in_store(folder, run)
    found = audited(folder, run, list(states))
    lost = [result for result in results if result.status == "person"]
    assert all("unknown_effect" in (result.reason or "") for result in lost) and len(lost) <= AT_ONCE
    assert found.statuses == {"done": ITEMS - len(lost), **({"person": len(lost)} if lost else {})}
    assert list(states.values()).count("unknown") == len(lost)
    assert all(found.effects[key] == 1 for key, state in states.items() if state == "done")


@pytest.mark.parametrize("seed", POINTS)
def test_idempotent_writes_are_finished(tmp_path: Path, seed: int) -> None:
    """Each payment is made in the end, and what was repeated was repeated under its own key."""
    folder = made(tmp_path, idempotent=True)
    run = killed_and_resumed(folder, seed)
    _, results, states = in_store(folder, run)
    found = audited(folder, run, [])
    assert {result.status for result in results} == {"done"} and set(states.values()) == {"done"}
    assert len(found.effects) == ITEMS == len(states)
    assert found.effects.total() - ITEMS <= AT_ONCE
