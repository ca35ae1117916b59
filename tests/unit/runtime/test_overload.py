"""A swarm that is asked more than it can do says so at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarm.errors import Overloaded
from swarm.testing import Hangs, Says, Script, launch_scripted

SWARM = """\
schema: swarm/v1
name: shop
specialists:
  shout: {kind: tool, tools: shout.py, input: [text], output_schema: {type: object}}
steps:
  shout: {specialist: shout, input: {text: "${input.text}"}}
runtime: {max_in_flight: 2}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "shop.yaml").write_text(SWARM)
    (tmp_path / "shout.py").write_text("def run(text):\n    return {'said': text}\n")
    return tmp_path / "shop.yaml"


async def test_callers_beyond_the_bound_are_refused_before_anything_is_begun(file: Path) -> None:
    """Two are worked on and sixteen wait; the nineteenth is told when to come back, and nothing of it is asked."""
    script = Script({"shout": Hangs()})
    async with launch_scripted(file, script) as swarm:
        waiting = [asyncio.create_task(swarm.run({"text": str(i)})) for i in range(18)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="at most 18 may") as refused:
            await swarm.run({"text": "one too many"})
        assert refused.value.retry_s > 0
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert "one too many" not in {ask.input["text"] for ask in script.asks}


async def test_map_never_sees_a_refusal(file: Path) -> None:
    """It takes no more than it has room for, while others fill every place that there is to wait in."""
    script = Script(lambda ask: Says({"said": "x"}, after_s=0.001))
    async with launch_scripted(file, script) as swarm:
        others = [asyncio.create_task(swarm.run({"text": "other"})) for _ in range(18)]
        await asyncio.sleep(0)
        results = [result async for result in swarm.map({"text": str(i)} for i in range(100))]
        assert {result.status for result in results} == {"done"}
        assert {(await other).status for other in others} == {"done"}
