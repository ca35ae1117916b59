"""What a store in PostgreSQL promises besides: many machines, a server that goes away, secrets that stay secret."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from ledger_books import RUN, attempt, opened, record, result, sql, tokens
from postgres_server import PASSWORD, Server, running

from protocols.money import Amount, Limit
from swarm.errors import StoreError
from swarm.state.lease import LeasedStore
from swarm.state.postgres.store import PostgresStore
from swarm.state.records import Record


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.new()


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    """A store with one run of at most 1,000 tokens under a tenant, and three tasks."""
    store = await PostgresStore.open(url)
    await store.tenant("acme", Limit(tokens=900))
    await store.begin(record(), Limit(tokens=1000), "acme")
    for task in ("t-1", "t-2", "t-3"):
        await store.accept(RUN, task, Limit(tokens=500), {"s": Limit(tokens=400)})
    yield store
    await store.check()
    await store.close()


# --- many programs ----------------------------------------------------------------------------------------------


async def test_many_dispatchers_share_one_account(store: PostgresStore, url: str) -> None:
    """However their transactions cross, each hold is granted or refused once, and the limit is used up exactly."""
    dispatchers = [await PostgresStore.open(url) for _ in range(6)]

    async def spend(n: int, one: PostgresStore, i: int) -> int:
        task, id = f"t-{i % 3 + 1}", f"a-{n}-{i}"
        while refusal := await one.hold(id, RUN, task, tokens(10), step="s" if i % 2 else None, sent=False):
            if not refusal.passing:
                return 0
        await one.sent(id)
        await one.settle(attempt(id, task), RUN, tokens(7))
        return 7

    spent = await asyncio.gather(*(spend(n, one, i) for n, one in enumerate(dispatchers) for i in range(40)))
    assert 900 - 10 < sum(spent) <= 900
    assert (await store.balance("tenant:acme")).settled == tokens(sum(spent))
    assert len(await store.attempts(RUN)) == len([n for n in spent if n])
    for one in dispatchers:
        await one.close()


async def test_a_hold_that_two_ask_for_at_once_is_one(store: PostgresStore, url: str) -> None:
    """By the same key both are told that it is held; without one, or for another task, the second is refused."""
    other = await PostgresStore.open(url)
    both = [one.hold("a-1", RUN, "t-1", tokens(20), key="k") for one in (store, other)]
    assert await asyncio.gather(*both) == [None, None]
    crossed = [one.hold("a-2", RUN, task, tokens(20)) for one, task in ((store, "t-1"), (other, "t-2"))]
    answers = await asyncio.gather(*crossed, return_exceptions=True)
    assert sorted(type(answer) for answer in answers if answer) == [StoreError]
    assert (await store.balance(f"run:{RUN}")).held == tokens(40)
    await other.close()


async def test_a_task_is_accepted_and_ended_once_by_all(store: PostgresStore, url: str) -> None:
    """Two dispatchers that want the same at once: one of them is told no."""
    other = await PostgresStore.open(url)
    for wanted in (
        lambda one: one.accept(RUN, "t-9", Limit(), body=b"b"),
        lambda one: one.finish(RUN, result("t-9")),
        lambda one: one.records.put([Record(kind="effect", scope=RUN, key="k", body=b"b")], new=True),
    ):
        answers = await asyncio.gather(wanted(store), wanted(other), return_exceptions=True)
        assert [isinstance(answer, StoreError) for answer in answers].count(True) == 1
    assert (len(await store.tasks(RUN)), len(await store.results(RUN))) == (1, 1)
    await other.close()


async def test_transactions_that_block_each_other_are_done_again(store: PostgresStore, url: str) -> None:
    """A deadlock with a program that locks in another order fails nobody's hold."""
    other = await psycopg.AsyncConnection.connect(url)
    await other.execute("SET deadlock_timeout = '10s'")
    await other.execute(b"SELECT * FROM accounts WHERE id = 'task:t-1' FOR UPDATE")
    holding = asyncio.create_task(store.hold("a-1", RUN, "t-1", tokens(5)))  # has the run, waits for the task
    async with asyncio.timeout(30):
        while not sql(url, "SELECT 1 FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await other.execute(f"SELECT * FROM accounts WHERE id = 'run:{RUN}' FOR UPDATE".encode())
        await other.rollback()
        assert await holding is None
    await other.close()


async def test_leases_of_many_machines_share_a_run(store: PostgresStore, url: str) -> None:
    """Each grants from its slice; together they never pass the limit."""
    shards = [LeasedStore(await PostgresStore.open(url), RUN, tokens(60)) for _ in range(3)]
    spent = 0
    for n, shard in enumerate(shards):
        await shard.accept(RUN, f"t-shard-{n}", Limit())
        for i in range(60):
            id = f"a-{n}-{i}"
            if await shard.hold(id, RUN, f"t-shard-{n}", tokens(10)) is None:
                await shard.settle(attempt(id, f"t-shard-{n}"), RUN, tokens(6))
                spent += 6
    for shard in shards:
        await shard.close()
    balance = await store.balance(f"run:{RUN}")
    assert (balance.settled, balance.held) == (tokens(spent), Amount())
    assert spent > 900 - 3 * (60 + 10), "all but what each had left of its last slice"


# --- a server that goes away ------------------------------------------------------------------------------------


@pytest.fixture
def own_server() -> Iterator[Server]:
    yield from running()


async def test_a_server_that_went_away_and_came_back_has_everything(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile every hold is a `StoreError`, so that nothing paid starts; afterwards work goes on by itself."""
    monkeypatch.setattr("swarm.state.postgres.address.CONNECT_S", 1.0)
    store = await PostgresStore.open(own_server.new())
    await store.begin(record(), Limit(tokens=100))
    await store.accept(RUN, "t-1", Limit())
    assert await store.hold("a-1", RUN, "t-1", tokens(30)) is None
    own_server.kill()
    with pytest.raises(StoreError, match="the store cannot be used") as said:
        async with asyncio.timeout(60):
            await store.hold("a-2", RUN, "t-1", tokens(30))
    assert PASSWORD not in str(said.value)
    own_server.process = own_server.start()
    async with asyncio.timeout(60):
        assert await store.hold("a-3", RUN, "t-1", tokens(30)) is None
    assert (await store.balance(f"run:{RUN}")).held == tokens(60)
    assert await store.problems() == []
    await store.close()


# --- secrets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("@127.0.0.1", "x@127.0.0.1"), "password authentication failed"),
        (("postgres?", "nowhere?"), "does not exist"),
        (("@127.0.0.1:", "@127.0.0.1:1"), "the store"),
        (("swarm:", "swarm%zz:"), "cannot be read"),
        (("?options", "?option"), "cannot be read"),
    ],
    ids=["password", "database", "port", "address", "parameter"],
)
async def test_a_password_is_in_no_message(postgres: Server, change: tuple[str, str], says: str) -> None:
    """Whatever is wrong with an address, neither the error nor what led to it shows it."""
    wrong = postgres.url().replace(*change, 1)
    with pytest.raises(StoreError, match=says) as said:
        await opened(wrong)
    shown = "".join(traceback.format_exception(said.value))
    assert PASSWORD not in shown.replace(wrong, "")
    assert "n0t%2Fin" not in str(said.value)
