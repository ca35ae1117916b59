"""Tools that write, and steps that remember, in a swarm as its users launch it."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

import swarm
from swarm.dispatch.outbox import Outbox
from swarm.runtime.in_process import InProcessRuntime
from swarm.runtime.labelling import item_of, labelled
from swarm.runtime.launch import planned
from swarm.runtime.session import Session
from swarm.state.store import open_store

SHOP = """\
schema: swarm/v1
name: shop
specialists:
  look_up: {kind: tool, tools: look_up.py, output_schema: {type: object, required: [order]}}
  refund:
    kind: tool
    tools: refund.py
    input: [order]
    effects: write
    output_schema: {type: object, properties: {by: {type: string}}, required: [by]}
    tiers: [code, person]
steps:
  look_up: {specialist: look_up, input: {text: "${input.text}"}, memory: {key: "${input.customer}"}}
  refund: {specialist: refund, input: {order: "${look_up.order}"}}
"""
LOOK_UP = "def run(text, memory=''):\n    return {'order': text.split()[-1], 'told': memory}\n"
REFUND = """\
def run(order, idempotency_key):
    with open({log!r}, "a") as log:
        print(order, idempotency_key, file=log)
    if order == "A-13":
        raise ConnectionError("reset by peer")
    return {{"by": idempotency_key}}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "look_up.py").write_text(LOOK_UP)
    (tmp_path / "refund.py").write_text(REFUND.format(log=str(tmp_path / "world")))
    (tmp_path / "shop.yaml").write_text(SHOP)
    return tmp_path / "shop.yaml"


def launched(shop: Path) -> swarm.Swarm:
    return swarm.launch(shop, store=shop.parent / "store.db")


def outbox(shop: Path, run: str) -> dict[str, str]:
    """States by key."""

    async def read() -> dict[str, str]:
        store = await open_store(shop.parent / "store.db")
        try:
            return {key: effect.state for key, (_, effect) in (await Outbox(store.records, run).all()).items()}
        finally:
            await store.close()

    return asyncio.run(read())


def test_each_task_writes_once_under_its_own_key(shop: Path) -> None:
    """The tool is given a key, no two tasks have the same, and the outbox knows all of them as done."""
    with launched(shop) as running:
        results = [running.run_sync({"text": "refund A-1", "customer": "ann"}) for _ in range(3)]
        run = running.run_id
    world = (shop.parent / "world").read_text().splitlines()
    keys = [result.output["refund"]["by"] for result in results]
    assert world == [f"A-1 {key}" for key in keys] and len(set(keys)) == 3
    assert outbox(shop, run) == dict.fromkeys(keys, "done")


def test_write_that_failed_goes_to_a_person_and_is_not_tried_again(shop: Path) -> None:
    """A tool that raises is called once; the task says why it waits for a person."""
    with launched(shop) as running:
        result = running.run_sync({"text": "refund A-13", "customer": "ann"})
        run = running.run_id
    assert result.status == "person" and "reset by peer" in (result.reason or "")
    assert len((shop.parent / "world").read_text().splitlines()) == 1
    assert list(outbox(shop, run).values()) == ["failed"]


async def test_calibrating_writes_nothing(shop: Path) -> None:
    """Labelled items are looked at by every tier that may be tried, and no write is made to see what it says."""
    plan = planned(shop)
    plan = dataclasses.replace(plan, runtime=plan.runtime.model_copy(update={"store": ":memory:"}))
    session = await Session.open(plan, InProcessRuntime(), together=True)
    try:
        labels = {"look_up": {"order": "A-1"}, "refund": {"by": "x"}}
        item = item_of(plan, {"input": {"text": "refund A-1"}, "labels": labels}, "line 1")
        seen = await labelled((await session.current()).setting, [item], lambda _: None)
    finally:
        await session.close()
    assert [list(row) for row in seen["look_up"].rows] == [["code"]] and not seen["refund"].rows
    assert not (shop.parent / "world").exists()


def test_step_remembers_across_runs(shop: Path) -> None:
    """A later launch tells the step what it answered before for that customer, and for no other."""
    with launched(shop) as running:
        first = running.run_sync({"text": "refund A-1", "customer": "ann"})
    with launched(shop) as running:
        again = running.run_sync({"text": "refund A-2", "customer": "ann"})
        other = running.run_sync({"text": "refund A-3", "customer": "bob"})
        nobody = running.run_sync({"text": "refund A-4"})
    told = [result.output["look_up"]["told"] for result in (first, again, other, nobody)]
    assert told == ["", "refund A-1 → A-1", "", ""]
