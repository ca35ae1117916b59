"""A person sees what a run has written to the world outside, and settles what nobody knows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from protocols.answers import Answer, Failed
from protocols.money import Limit
from protocols.records import RunRecord
from swarm.cli.effects import effects
from swarm.dispatch.outbox import Effect, Outbox, State
from swarm.errors import SwarmError
from swarm.runtime.launch import planned
from swarm.state.base import Store
from swarm.state.store import open_store

RUN = "r-1"
SWARM = """\
schema: swarm/v1
name: shop
specialists:
  pay:
    kind: tool
    tools: pay.py
    effects: write
    output_schema: {type: object, properties: {id: {type: string}}, required: [id]}
steps:
  pay: {specialist: pay, input: {text: "${input.text}"}}
"""
PAY = """\
def run(text, idempotency_key):
    with open({log!r}, "a") as log:
        print(idempotency_key, text, file=log)
    return {{"id": idempotency_key[:4]}}
"""
KEYS: dict[State, str] = {"unknown": "aaaa" * 16, "intended": "aabb" * 16, "done": "cccc" * 16, "failed": "dddd" * 16}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with a run of a swarm that pays, and a write in each state."""
    (tmp_path / "shop.yaml").write_text(SWARM)
    (tmp_path / "pay.py").write_text(PAY.format(log=str(tmp_path / "world")))
    replies = {
        "done": Answer(id="a", output={"id": "7"}),
        "failed": Failed(id="a", reason="tool_error", detail="no money"),
    }

    async def make(store: Store) -> None:
        plan = planned(tmp_path / "shop.yaml")
        record = RunRecord(id=RUN, swarm="shop", plan_hash=plan.hash, started=1.0, about={"file": plan.path})
        await store.begin(record, Limit())
        for i, (state, key) in enumerate(KEYS.items()):
            effect = Effect(
                task=f"t-{i}", step="pay", state=state, input={"text": "3 dollars"}, reply=replies.get(state)
            )
            await Outbox(store.records, RUN).put(key, effect)

    in_store(tmp_path, make)
    return tmp_path


def in_store(folder: Path, work: Callable[[Store], Awaitable[Any]]) -> Any:
    async def opened() -> Any:
        store = await open_store(folder / "store.db")
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(opened())


def command(folder: Path, *arguments: str) -> Result:
    app = typer.Typer()
    app.command()(effects)
    return CliRunner().invoke(app, [RUN, *arguments, "--store", str(folder / "store.db")])


def lines(folder: Path, *arguments: str) -> list[str]:
    done = command(folder, *arguments)
    assert done.exit_code == 0, done.exception
    return done.output.splitlines()


def refusal(folder: Path, *arguments: str) -> str:
    done = command(folder, *arguments)
    assert isinstance(done.exception, SwarmError)
    return str(done.exception)


def found(folder: Path, key: str) -> Effect:
    effect: Effect | None = in_store(folder, lambda store: Outbox(store.records, RUN).find(key))
    assert effect is not None
    return effect


def test_effects_are_listed_with_their_state(folder: Path) -> None:
    """A line for each: key, time, state, step and task, inputs, and the cause where there is one."""
    listed = lines(folder)
    assert [line.split()[0] for line in listed] == [key[:12] for key in KEYS.values()]
    assert all(state in line and '{"text": "3 dollars"}' in line for state, line in zip(KEYS, listed, strict=True))
    assert listed[3].endswith("no money")
    whole = [json.loads(line) for line in lines(folder, "--json")]
    assert [(each["key"], each["state"]) for each in whole] == [(key, state) for state, key in KEYS.items()]


def test_person_says_that_a_write_was_done(folder: Path) -> None:
    """It is done from then on, with the output that he names; the tool is not called."""
    lines(folder, "--done", "aaaa", "--output", '{"id": "by hand"}')
    effect = found(folder, KEYS["unknown"])
    assert effect.state == "done" and isinstance(effect.reply, Answer) and effect.reply.output == {"id": "by hand"}
    assert not (folder / "world").exists()


def test_person_has_a_write_made_again(folder: Path) -> None:
    """The tool is called once, with the same input and the same key, and its answer is noted."""
    assert lines(folder, "--retry", "aaaa") == ['aaaaaaaaaaaa: done now: {"id": "aaaa"}']
    assert (folder / "world").read_text() == f"{KEYS['unknown']} 3 dollars\n"
    assert found(folder, KEYS["unknown"]).state == "done"


def test_retry_that_fails_says_so_and_is_noted(folder: Path) -> None:
    """What the tool raises is the command's error; the write is known to have failed then."""
    code = "def run(text, idempotency_key):\n    raise ValueError('account closed')\n"
    (folder / "pay.py").write_text(code)

    async def adopt(store: Store) -> None:
        record = RunRecord(id=RUN, swarm="shop", plan_hash=planned(folder / "shop.yaml").hash, started=1.0)
        about = {"file": str(folder / "shop.yaml")}
        await store.begin(
            RunRecord(id="r-2", swarm="shop", plan_hash=record.plan_hash, started=1.0, about=about), Limit()
        )
        effect = Effect(task="t", step="pay", state="unknown", input={"text": "x"})
        await Outbox(store.records, "r-2").put("ee" * 32, effect)

    in_store(folder, adopt)
    app = typer.Typer()
    app.command()(effects)
    done = CliRunner().invoke(app, ["r-2", "--retry", "ee", "--store", str(folder / "store.db")])
    assert isinstance(done.exception, SwarmError) and "account closed" in str(done.exception)
    state = in_store(folder, lambda store: Outbox(store.records, "r-2").find("ee" * 32)).state
    assert state == "failed"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--done", "aa"), "2 effects whose key begins with 'aa'"),
        (("--done", "ff"), "no effect whose key begins with 'ff'"),
        (("--retry", "cccc"), "is done; only one of which nobody knows"),
        (("--done", "dddd"), "is failed; only one of which nobody knows"),
        (("--done", "aaaa", "--output", "[1]"), "--output is no JSON object"),
        (("--done", "aaaa", "--retry", "aaaa"), "give one of them"),
    ],
)
def test_what_cannot_be_settled_is_refused(folder: Path, arguments: tuple[str, ...], says: str) -> None:
    """Nothing changes, and the message says why."""
    assert says in refusal(folder, *arguments)
    assert found(folder, KEYS["unknown"]).state == "unknown" and not (folder / "world").exists()


def test_tool_that_has_changed_is_not_called(folder: Path) -> None:
    """A retry is of the same swarm and the same code, or it is none."""
    with (folder / "pay.py").open("a") as code:
        code.write("# another day\n")
    assert "put the swarm file and its packs back" in refusal(folder, "--retry", "aaaa")
    assert found(folder, KEYS["unknown"]).state == "unknown" and not (folder / "world").exists()


def test_unknown_run_and_store_are_said(folder: Path) -> None:
    """Both name what is missing."""
    app = typer.Typer()
    app.command()(effects)
    for arguments, says in (
        (["r-9", "--store", str(folder / "store.db")], "r-9"),
        (["r-1", "--store", "none.db"], "none.db"),
    ):
        assert says in str(CliRunner().invoke(app, arguments).exception)
