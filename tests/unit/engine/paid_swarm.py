"""A swarm with one paid tier against a provider on this machine, and what its store says of one task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
from remote_provider import Act, Provider, provider

import swarm
from protocols.tasks import Result
from swarm.observe.receipt import Receipt, TierLine

KEY = "sk-planted-0123456789abcdef"
MESSAGE = "Where is my parcel?"
FILE = """
schema: swarm/v1
name: paid
models:
  remote:
    model: big-one
    base_url: {url}
    api_key: ${{env:TEST_MODEL_KEY}}
    price: {{input: 1, output: 2}}
    timeout: {timeout}
specialists:
  sort:
    kind: classify
    labels: {{parcel: about a delivery, money: about a payment}}
    max_tokens: 20
    tiers: [remote]
steps:
  sort:
    specialist: sort
    input: {{text: "${{input.text}}"}}
budget:
  task: {task}
  run: {{usd: 0.01}}
  on_exhausted: {on_exhausted}
"""
RIGHT = '{"label": "parcel"}'


@dataclass(frozen=True)
class Hold:
    micro_usd: int
    over_micro_usd: int


@dataclass(frozen=True)
class Outcome:
    """One task, and what the store says of it afterwards."""

    result: Result
    receipt: Receipt
    server: Provider
    holds: list[Hold]
    settled_micro_usd: int

    @property
    def line(self) -> TierLine:
        (line,) = self.receipt.tiers
        return line


@contextmanager
def launched(folder: Path, url: str, **settings: Any) -> Iterator[swarm.Swarm]:
    path = folder / "paid.yaml"
    path.write_text(FILE.format(**{"url": url, "timeout": 10, "task": "{}", "on_exhausted": "stop", **settings}))
    with swarm.launch(path, runtime="in-process", store=folder / "store.db") as launched:
        yield launched


def kept(folder: Path, run: str) -> tuple[list[Hold], int]:
    """The holds in the order they were taken, and what the run's account has spent."""
    db = apsw.Connection(str(folder / "store.db"))
    holds: list[Any] = db.execute("SELECT micro_usd, overrun_micro_usd FROM holds ORDER BY id").fetchall()
    account: Any = db.execute(
        "SELECT settled_micro_usd, held_micro_usd FROM accounts WHERE id = ?", (f"run:{run}",)
    ).fetchone()
    db.close()
    settled, held = account
    assert held == 0, "whatever happens, no hold stays open"
    return [Hold(*hold) for hold in holds], settled


def outcome(folder: Path, *acts: Act, text: str = MESSAGE, **settings: Any) -> Outcome:
    """What becomes of one task when the provider does `acts`."""
    with provider(*acts) as server, launched(folder, server.url, **settings) as paid:
        result = paid.run_sync({"text": text})
        receipt = paid.receipt()
        run = paid.run_id
    return Outcome(result, receipt, server, *kept(folder, run))
