"""What callers of a `Swarm` rely on: order, bounds, hand-overs, closing, interrupts."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocols.events import TaskFinished
from swarm.errors import SwarmError
from swarm.runtime.loop import Loop
from swarm.runtime.person import PersonFile
from swarm.runtime.session import Session
from swarm.runtime.swarm import BUFFERED, Swarm
from swarm.testing import Hangs, Says, Script, launch_scripted

MOOD = """\
schema: swarm/v1
name: mood
models: {head: all-MiniLM-L6-v2}
specialists:
  mood:
    kind: classify
    labels: {happy: pleased, sad: not pleased}
    examples: {happy: [Thanks, Lovely], sad: [Oh no, What a mess]}
    tiers: [head, person]
steps: {mood: {specialist: mood, input: {text: "${input.text}"}}}
runtime: {kind: in-process, max_in_flight: 4, person_file: out/person.jsonl}
"""


@pytest.fixture
def mood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mood.yaml"
    path.write_text(MOOD)
    return path


def sure(mood: Path) -> Swarm:
    return launch_scripted(mood, Script({"mood": Says({"label": "happy"}, confidence=0.99)}))


def test_every_streamed_task_that_ends_with_a_person_is_in_the_person_file(mood: Path) -> None:
    """The last event of a stream comes after the line is written."""

    async def streamed(running: Swarm) -> int:
        ends = 0
        for n in range(20):
            async for event in running.stream({"text": str(n)}):
                ends += isinstance(event, TaskFinished) and event.result.status == "person"
        return ends

    with launch_scripted(mood, Script({"mood": Says({"label": "happy"}, confidence=0.1)})) as running:
        session = running._session
        assert isinstance(session, Session)
        run = running._loop.wait(session.current())
        run._person = PersonFile(Path("out/person.jsonl"))  # a scripted swarm hands nothing over
        assert asyncio.run(streamed(running)) == 20
    lines = Path("out/person.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["input"]["text"] for line in lines] == [str(n) for n in range(20)]


def test_map_takes_no_more_items_than_it_may_keep(mood: Path) -> None:
    """With the first item hanging, an endless source is read to a bound and no further."""
    taken = 0

    def endless() -> Iterator[dict[str, str]]:
        nonlocal taken
        for taken in itertools.count(1):
            yield {"text": str(taken)}

    async def first(running: Swarm) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                async for _ in running.map(endless()):
                    pytest.fail("the first item never ends")

    said = [Says({"label": "happy"}, confidence=0.99) for _ in range(1000)]
    with launch_scripted(mood, Script({"mood": [said[0], Hangs(), *said[1:]]})) as running:
        running.run_sync({"text": "0"})  # the run has begun: from now on the first to come is the first to be asked
        asyncio.run(first(running))
    assert 4 < taken <= BUFFERED * 4 + 2


def test_an_item_that_is_no_mapping_fails_alone(mood: Path) -> None:
    """The others of the same map are answered."""
    items: list[Any] = [{"text": "a"}, 7, {"text": "b"}]
    with sure(mood) as running:
        results = list(running.map_sync(items))
    assert [r.status for r in results] == ["done", "failed", "done"]
    assert "not int" in (results[1].reason or "")


def test_map_sync_works_inside_a_running_loop(mood: Path) -> None:
    """As in a notebook's cell."""

    async def cell(running: Swarm) -> list[str]:
        return [r.status for r in running.map_sync([{"text": "a"}, {"text": "b"}])]

    with sure(mood) as running:
        assert asyncio.run(cell(running)) == ["done", "done"]


def test_a_closed_swarm_says_so(mood: Path) -> None:
    """Every call after `close` is the same clear error; a second `close` is none."""
    running = sure(mood)
    running.close()
    running.close()
    with pytest.raises(SwarmError, match="was closed; launch it again"):
        running.run_sync({"text": "a"})
    with pytest.raises(SwarmError, match="was closed; launch it again"):
        asyncio.run(running.run({"text": "a"}))
    with pytest.raises(SwarmError, match="was closed; launch it again"):
        running.receipt()


def test_an_interrupted_wait_is_over_only_when_its_work_has_cleaned_up() -> None:
    """What was begun on the loop is put in order before the caller goes on."""
    loop = Loop()
    begun, cleaned = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.2)
            cleaned.set()

    async def interrupted() -> None:
        waiting = asyncio.ensure_future(loop.bridge(work()))
        await asyncio.to_thread(begun.wait)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(interrupted())
    loop.stop()
    assert cleaned.is_set()
    with pytest.raises(SwarmError, match="was closed"):
        loop.wait(work())
