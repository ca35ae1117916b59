"""Dispatchers that share one PostgreSQL account are killed, and the server under them: 0 overspend, nothing lost.

`SWARM_STORE_SECONDS` says for how long.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import store_spender
from postgres_server import Server, running

from protocols.money import Amount, Limit
from protocols.records import RunRecord
from swarm.state.postgres.store import PostgresStore

SECONDS = float(os.environ.get("SWARM_STORE_SECONDS", "10"))
DISPATCHERS = 4
KILL_S = 1.0  # between two dispatchers that are killed
LIMIT = Limit(tokens=60_000, micro_usd=40_000)


class Dispatchers:
    """So many programs at a time; one that is killed is replaced."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.names = count()
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        command = [sys.executable, store_spender.__file__, self.url, f"d{next(self.names)}", str(self.folder)]
        self.running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))

    def kill(self) -> None:
        gone = self.running.pop(0)
        gone.kill()
        gone.wait()

    def lines(self, kind: str) -> list[list[str]]:
        files = sorted(self.folder.glob(f"*.{kind}"))
        return [
            line.split() for file in files for line in file.read_text().splitlines(keepends=True) if line[-1] == "\n"
        ]


@pytest.fixture
def server() -> Iterator[Server]:
    yield from running()


@pytest.fixture
def dispatchers(server: Server, tmp_path: Path) -> Iterator[Dispatchers]:
    dispatchers = Dispatchers(server.new(), tmp_path)
    yield dispatchers
    while dispatchers.running:
        dispatchers.kill()


async def test_nothing_is_overspent_or_lost_when_dispatchers_and_server_die(
    server: Server, dispatchers: Dispatchers
) -> None:
    """The books are right, no limit is broken, what was billed is charged, what was acknowledged is there."""
    store = await _begun(dispatchers.url)
    for _ in range(DISPATCHERS):
        dispatchers.start()
    until, crash = time.monotonic() + SECONDS, time.monotonic() + SECONDS / 2
    while time.monotonic() < until:
        await asyncio.sleep(KILL_S)
        if time.monotonic() > crash:
            crash = until
            server.kill()
            await asyncio.sleep(KILL_S)
            server.process = server.start()
        dispatchers.kill()
        dispatchers.start()
        assert await store.problems() == []
    while dispatchers.running:
        dispatchers.kill()
    await _settled(store)

    assert await store.problems() == []
    balance = await store.balance("tenant:acme")
    assert balance.held == Amount()
    assert balance.settled.tokens <= 60_000
    assert balance.settled.micro_usd <= 40_000
    bills = dispatchers.lines("bills")
    assert balance.settled.tokens >= sum(int(tokens) for _, tokens, _ in bills)
    assert balance.settled.micro_usd >= sum(int(usd) for _, _, usd in bills)
    kept = {attempt.id for attempt in await store.attempts(store_spender.RUN)}
    told = {id for (id,) in dispatchers.lines("told")}
    assert told <= kept
    assert len(told) > 100
    print(
        f"{next(dispatchers.names)} dispatchers killed in {SECONDS:.0f} s, and the server once:", end=" "
    )  # pytest -s
    print(f"{len(bills):,} attempts billed, {len(told):,} acknowledged, 0 lost, 0 overspent")
    await store.close()


async def _begun(url: str) -> PostgresStore:
    store = await PostgresStore.open(url, ttl_s=store_spender.TTL_S)
    await store.tenant("acme", LIMIT)
    await store.begin(RunRecord(id=store_spender.RUN, swarm="s", plan_hash="h", started=1.0), Limit(), "acme")
    for i in range(store_spender.TASKS):
        await store.accept(store_spender.RUN, f"t-{i}", Limit(tokens=9_000))
    await store.accept(store_spender.RUN, "t-watched", Limit())
    assert await store.hold("a-watched", store_spender.RUN, "t-watched", Amount(), sent=False) is None
    return store


async def _settled(store: PostgresStore) -> None:
    """The dead are noticed by who still lives and holds something: us."""
    async with asyncio.timeout(60):
        while (await store.balance("tenant:acme")).held != Amount():  # noqa: ASYNC110
            await asyncio.sleep(0.2)
