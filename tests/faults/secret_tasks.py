"""A program of its own with secrets in its environment: runs a swarm whose tools and provider say them out loud.

Arguments: folder, address of the provider, runtime (`in-process` or `ray`). Logs everything, as `swarm run` would.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import msgspec

import swarm
from swarm.observe.log import configure

FILE = """\
schema: swarm/v1
name: leaky
models:
  remote:
    model: big-one
    base_url: {url}
    api_key: ${{env:OUR_MODEL_ACCESS}}
    price: {{input: 1, output: 2}}
    timeout: 10
specialists:
  said: {{kind: classify, labels: {{a: one, b: two}}, max_tokens: 20, tiers: [remote, person]}}
  done: {{kind: tool, tools: leaky.py, input: [way], output_schema: {{type: object}}, tiers: [code]}}
  looked: {{kind: tool, tools: leaky.py, input: [way], output_schema: {{type: object}}, tiers: [code, person]}}
steps:
  said: {{specialist: said, input: {{text: "${{input.text}}"}}}}
  done: {{specialist: {tool}, input: {{way: "${{input.way}}"}}}}
budget: {{run: {{usd: 1}}}}
runtime: {{hosts: 1, cpus: 1, person_file: person.jsonl}}
"""
TOOLS = """\
import os

def run(way):
    password, token = os.environ["SHOP_PASSWORD"], os.environ["CRM_TOKEN"]
    match way:
        case "message":
            raise RuntimeError(f"login as shop with {password} failed")
        case "chain":
            try:
                raise ConnectionError(f"https://shop:{password}@db.example/ refused {token}")
            except ConnectionError as e:
                raise RuntimeError("cannot reach the shop") from e
        case "key":
            return {}[token]
        case "bytes":
            raise ValueError(b"token " + token.encode())
        case "cut":
            raise RuntimeError("x" * 425 + password)
        case "exit":
            raise SystemExit(f"Authorization: Bearer {token}")
        case "odd":
            return {"set": {token}, "object": object}
        case _:
            return {}
"""
BROKEN = """\
import os

raise ValueError("no shop for " + os.environ["SHOP_PASSWORD"])
"""
WAYS = ("message", "chain", "key", "bytes", "cut", "exit", "odd", "none")


def main() -> None:
    folder, url, runtime = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    logging.basicConfig(level=logging.DEBUG)  # what the libraries beneath say
    configure(json=True, level="debug")
    (folder / "leaky.py").write_text(TOOLS)
    for tool in ("done", "looked"):
        (folder / f"{tool}.yaml").write_text(FILE.format(url=url, tool=tool))
        with swarm.launch(folder / f"{tool}.yaml", runtime=runtime, store=folder / "store.db") as s:  # type: ignore[arg-type]
            asyncio.run(_told(s))
    (folder / "leaky.py").write_text(BROKEN)
    try:
        swarm.launch(folder / "done.yaml", runtime=runtime, store=folder / "store.db").close()  # type: ignore[arg-type]
    except swarm.SwarmError as e:
        print("refused", e)
    print("finished")


async def _told(s: swarm.Swarm) -> None:
    async for event in s.stream({"text": "question", "way": "message"}):
        print(event)
    async for result in s.map({"text": f"question {way}", "way": way} for way in WAYS):
        print(msgspec.json.encode(result).decode())
    print(s.receipt())
    print(msgspec.json.encode(s.receipt()).decode())


if __name__ == "__main__":
    main()
