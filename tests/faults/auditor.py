"""The oracle of the fault tests. It stands outside the framework: it reads what the tools themselves have written, and
the store as it lies on disk.

A tool writes a line "key attempt" for every effect it has, `LOGGED` shows how; `attempt` only tells calls apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from pathlib import Path

from protocols.ids import RunId
from protocols.money import Amount, Limit
from protocols.records import Balance
from swarm.errors import StoreError
from swarm.state.base import Store
from swarm.state.store import open_store

LOGGED = """\
import os, uuid

def logged(key):
    with open(LOG, "ab", buffering=0) as log:
        log.write(f"{key} {uuid.uuid4().hex}\\n".encode())  # one write: lines of many processes do not mix
"""


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found. `statuses`: of all results; `effects`: how often each key was written down."""

    accepted: int
    statuses: Counter[str]
    effects: Counter[str]
    problems: list[str] = field(default_factory=list)


async def audit(
    path: Path | str, run: RunId, log: Path, writes: Collection[str] = (), done: Collection[str] = ()
) -> Audit:
    """Every accepted task has exactly one terminal state; each key of `writes` had its effect once at most, and each of
    `done` once; nothing is overspent, and replaying the ledger gives the balances."""
    store = await open_store(path)
    try:
        return await _audited(store, run, effects_of(log), writes, done)
    finally:
        await store.close()


async def _audited(
    store: Store, run: RunId, effects: Counter[str], writes: Collection[str], done: Collection[str]
) -> Audit:
    accepted = [id for id, _ in await store.tasks(run)]
    results = await store.results(run)
    problems = [*_ends(accepted, Counter(result.task for result in results))]
    problems += [f"{key}: {effects[key]} effects" for key in writes if effects[key] > 1]
    problems += [f"{key}: no effect, and its task is done" for key in done if effects[key] == 0]
    problems += [problem async for problem in _books(store, run, accepted)]
    return Audit(len(accepted), Counter(result.status for result in results), effects, problems)


def effects_of(log: Path) -> Counter[str]:
    """How often each key stands in the tools' log."""
    lines = log.read_text().splitlines() if log.is_file() else []
    return Counter(line.split()[0] for line in lines)


def _ends(accepted: Collection[str], ended: Counter[str]) -> list[str]:
    problems = [f"task {id} was accepted {n} times" for id, n in Counter(accepted).items() if n > 1]
    problems += [f"task {id} has {ended[id]} terminal states" for id in set(accepted) if ended[id] != 1]
    return problems + [f"task {id} ended and was never accepted" for id in set(ended) - set(accepted)]


async def _books(store: Store, run: RunId, tasks: Collection[str]) -> AsyncIterator[str]:
    try:
        await store.check()
    except StoreError as e:
        yield str(e)
    for account in (f"run:{run}", *(f"task:{task}" for task in tasks)):
        balance = await store.balance(account)
        if (over := overdrawn(balance)) or balance.held != Amount():
            yield f"{account}: {over or 'holds are open'}: {balance}"


def overdrawn(balance: Balance) -> str:
    """Where settled + held is over the limit, in words."""
    limit: Limit = balance.limit
    used = balance.settled + balance.held
    units = ("micro_usd", "tokens", "ms")
    found = [u for u in units if (most := getattr(limit, u)) is not None and getattr(used, u) > most]
    return ", ".join(f"{u} overdrawn" for u in found)
