"""A person sees what a run has given up on, and asks it again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from protocols.answers import Ask
from protocols.control import Cancel
from protocols.envelope import Envelope
from protocols.money import Limit
from protocols.records import RunRecord
from swarm.bus.letters import DeadLetter
from swarm.cli.dead import app
from swarm.errors import SwarmError
from swarm.runtime.launch import planned
from swarm.runtime.letters import Letters
from swarm.state.store import open_store

SWARM = """\
schema: swarm/v1
name: shop
specialists:
  shout: {kind: tool, tools: shout.py, input: [text], output_schema: {type: object, required: [said]}}
steps:
  shout: {specialist: shout, input: {text: "${input.text}"}}
"""
TOOL = "def run(text):\n    return {'said': text.upper()}\n"
ASK = Ask(id="a-1", task="t-1", step="shout", specialist="shout", tier="code", input={"text": "Größe?"}, max_tokens=0)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """One with a run that has given up on an ask and on a stray message."""
    (tmp_path / "shop.yaml").write_text(SWARM)
    (tmp_path / "shout.py").write_text(TOOL)
    path = tmp_path / "s.db"

    async def fill() -> None:
        plan = planned(tmp_path / "shop.yaml")
        kept = await open_store(path)
        about = {"file": plan.path}
        await kept.begin(RunRecord(id="r-1", swarm="shop", plan_hash=plan.hash, started=1.0, about=about), Limit())
        writing = Letters(kept.records, "r-1")
        writing.keep(DeadLetter(Envelope(to="host-0", sender="dispatcher", body=ASK, delivery=3), "out of memory"))
        stray = Envelope(to="dispatcher", sender="host-0", body=Cancel(id="x"))
        writing.keep(DeadLetter(stray, "the dispatcher takes answers only"))
        await writing.close()
        await kept.close()

    asyncio.run(fill())
    return path


def said(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_the_letters_of_a_run_are_listed(store: Path) -> None:
    """Each with what was asked of whom, and why it was given up."""
    lines = said("list", "r-1", "--store", store).stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("a-1  ") and lines[0].endswith("shout / code of t-1  out of memory")
    assert lines[1].endswith("Cancel  the dispatcher takes answers only")


def test_lists_are_json_for_programs(store: Path) -> None:
    """One object a line, the message whole."""
    first = json.loads(said("list", "r-1", "--store", store, "--json").stdout.splitlines()[0])
    assert (first["id"], first["cause"], first["envelope"]["delivery"]) == ("a-1", "out of memory", 3)
    assert first["envelope"]["body"]["input"] == {"text": "Größe?"}


def test_one_letter_is_shown_whole(store: Path) -> None:
    """Deliveries, host, cause, and what was asked."""
    text = said("show", "r-1", "a-1", "--store", store).stdout
    for part in ("after 3 deliveries, the last to host-0", "cause: out of memory", "step shout, tier code", '"Größe?"'):
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("show", "r-1", "a-9"), "run 'r-1' has no dead letter 'a-9'; `swarm dead list r-1` shows the 2 it has"),
        (("list", "r-9"), "run 'r-9' is not in the store"),
    ],
)
def test_what_is_not_there_is_said(store: Path, arguments: tuple[str, ...], why: str) -> None:
    """With what there is instead."""
    error = said(*arguments, "--store", store).exception
    assert isinstance(error, SwarmError) and why in str(error)


def test_a_stray_message_cannot_be_asked_again(store: Path) -> None:
    """It was no question."""
    stray = said("list", "r-1", "--store", store).stdout.splitlines()[1].split()[0]
    error = said("retry", "r-1", stray, "--store", store).exception
    assert isinstance(error, SwarmError) and "nothing to ask again" in str(error)


def test_a_letter_is_asked_again(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is printed, and the store has a second run with one task."""
    monkeypatch.setattr("swarm.runtime.launch.configure_if_nobody_has", lambda: None)  # would log to this test's stderr
    outcome = said("retry", "r-1", "a-1", "--store", store)
    assert outcome.exit_code == 0, outcome.exception
    assert json.loads(outcome.stdout) == {"shout": {"said": "GRÖSSE?"}}

    async def runs() -> list[RunRecord]:
        kept = await open_store(store)
        try:
            return await kept.runs()
        finally:
            await kept.close()

    assert len(asyncio.run(runs())) == 2
