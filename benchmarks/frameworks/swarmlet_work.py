"""Ours: steps of kind tool whose code returns what it was given.

python -m frameworks.swarmlet_work memory|durable
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

import swarm
from frameworks.turns import STEPS, TASKS, Run, gathered, serve

AGENT = "schema: pack/v1\nname: nothing\ndescription: Does nothing.\nkind: tool\ninput: [n]\n"
CODE = "async def run(n):\n    return {'n': n}\n"


def swarm_file(folder: Path, n_steps: int) -> Path:
    """A swarm whose steps hand on a number, one after the other."""
    inputs = ["${input.n}", *(f"${{s{i}.n}}" for i in range(n_steps - 1))]
    content = {
        "schema": "swarm/v1",
        "name": "null",
        "specialists": {"nothing": {"pack": "./nothing"}},
        "steps": {f"s{i}": {"specialist": "nothing", "input": {"n": given}} for i, given in enumerate(inputs)},
        "runtime": {"kind": "in-process", "max_in_flight": TASKS, "mailbox": TASKS},
    }
    path = folder / f"steps{n_steps}.yaml"
    path.write_text(json.dumps(content))  # which is YAML, too
    return path


def last(running: swarm.Swarm, n_steps: int) -> Run:
    async def run(n: int) -> object:
        result = await running.run({"n": n})
        return result.output[f"s{n_steps - 1}"]["n"]

    return run


async def main(ledger: str, folder: Path) -> None:
    pack = folder / "nothing"
    pack.mkdir()
    (pack / "agent.yaml").write_text(AGENT)
    (pack / "output.schema.json").write_text('{"type": "object"}')
    (pack / "tools.py").write_text(CODE)
    store = ":memory:" if ledger == "memory" else folder / "store.db"
    with (
        swarm.launch(swarm_file(folder, STEPS), store=store) as chain,
        swarm.launch(swarm_file(folder, 1), store=store) as one,
    ):
        await serve(last(chain, STEPS), lambda: gathered(last(one, 1)))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        asyncio.run(main(sys.argv[1], Path(home)))
