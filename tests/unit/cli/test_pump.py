"""Items through a swarm: none is lost in silence, and none piles up behind another."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocols.answers import Ask
from swarm.bus.script import Reply
from swarm.cli.jsonl import OrderedWriter
from swarm.cli.run import WAITING, _pump
from swarm.runtime.swarm import Swarm
from swarm.testing import Says, VirtualClock, launch_scripted

SWARM = """\
schema: swarm/v1
name: moods
models: {head: all-MiniLM-L6-v2}
specialists:
  mood:
    kind: classify
    labels: {happy: pleased or grateful, unhappy: upset or disappointed}
    examples:
      happy: [Thank you so much!, The new card is lovely, That was quick]
      unhappy: [It broke after a day, Still no reply from you, I was charged twice]
    tiers: [head]
steps: {mood: {specialist: mood, input: {text: "${input.text}"}}}
runtime: {kind: in-process, max_in_flight: 2}
"""
SLOW_S = 3600.0


def answer(ask: Ask) -> Reply:
    return Says({"label": "happy"}, 0.9, after_s=SLOW_S if ask.input["text"] == "slow" else 0.0)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def swarm(tmp_path: Path, clock: VirtualClock) -> Iterator[Swarm]:
    file = tmp_path / "moods.yaml"
    file.write_text(SWARM)
    with launch_scripted(file, answer, clock=clock) as running:
        yield running


def items(*texts: str) -> io.BytesIO:
    return io.BytesIO(b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts))


def test_an_item_that_breaks_down_is_a_record_and_counted(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raised, with its line; the others are answered, and a broken line is no broken item."""
    real = swarm.run

    async def run(item: Any, *, position: int) -> Any:
        if item["text"] == "b":
            raise KeyError("a mistake of ours")
        return await real(item, position=position)

    monkeypatch.setattr(swarm, "run", run)
    out = io.BytesIO()
    source = io.BytesIO(items("a", "b").getvalue() + b"{\n" + items("c").getvalue())
    assert asyncio.run(_pump(swarm, source, OrderedWriter(out), None)) == 1
    first, broken, no_item, last = (json.loads(line) for line in out.getvalue().splitlines())
    assert broken == {"text": "b", "line": 2, "error": "KeyError: 'a mistake of ours'"}
    assert no_item["line"] == 3
    assert [record["swarm"]["status"] for record in (first, last)] == ["done", "done"]


def test_results_that_cannot_be_written_end_the_run_at_once(swarm: Swarm) -> None:
    """Though the input stays open, and another item is still on its way."""

    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(28, "No space left on device")

    out, into = os.pipe()
    with open(out, "rb") as source, open(into, "wb", buffering=0) as producer:
        producer.write(items("a", "slow").getvalue())
        with pytest.raises(OSError, match="No space left"):
            asyncio.run(asyncio.wait_for(_pump(swarm, source, OrderedWriter(Full()), None), 60))
        producer.close()


async def test_an_item_that_takes_long_lets_only_so_many_wait_behind_it(swarm: Swarm, clock: VirtualClock) -> None:
    """No more are answered while what is done cannot be written yet; when it goes on, so does the rest."""
    out = io.BytesIO()
    writer = OrderedWriter(out)
    pumping = asyncio.create_task(_pump(swarm, items("slow", *map(str, range(100))), writer, None))
    bound = WAITING * swarm.plan.runtime.max_in_flight
    waiting = await _settled(writer, more_than=bound)
    assert waiting <= bound + swarm.plan.runtime.max_in_flight
    clock.advance(SLOW_S)
    assert await pumping == 0
    assert len(out.getvalue().splitlines()) == 101


async def _settled(writer: OrderedWriter, *, more_than: int) -> int:
    """How many records wait once there are `more_than` of them, and for a while no more have come."""
    last, same = -1, 0
    while same < 20 or last <= more_than:
        same = same + 1 if writer.waiting == last else 0
        last = writer.waiting
        await asyncio.sleep(0.01)
    return last
