"""The store keeps what it was told, once, and says clearly what it cannot do: all engines alike."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from ledger_books import RUN, Clock, attempt, record, result, tokens
from postgres_server import Server

from protocols.money import Amount, Limit
from protocols.records import RunRecord
from swarm.errors import KeyConflict, StoreError
from swarm.state.base import Ended, Refusal, Repeated, Store
from swarm.state.memory import MemoryStore
from swarm.state.postgres.store import PostgresStore
from swarm.state.records import Record
from swarm.state.sqlite import SqliteStore
from swarm.state.store import open_store

# --- the ledger -------------------------------------------------------------------------------------------------


async def test_a_refusal_says_what_stands_in_the_way(store: Store) -> None:
    """The account, the unit, what was wanted, what is left, and whether waiting helps."""
    assert await store.hold("a-1", RUN, "t-1", tokens(50)) is None
    assert await store.hold("a-2", RUN, "t-1", tokens(40)) == Refusal("task:t-1", "tokens", 40, 30, passing=True)
    await store.settle(attempt("a-1"), RUN, tokens(50))
    assert await store.hold("a-2", RUN, "t-1", tokens(40)) == Refusal("task:t-1", "tokens", 40, 30, passing=False)


async def test_a_refused_hold_leaves_nothing_behind(store: Store) -> None:
    """When the run has no room, nothing stays held on the task either."""
    await store.accept(RUN, "t-2", Limit())
    assert await store.hold("a-1", RUN, "t-1", tokens(70)) is None
    refusal = await store.hold("a-2", RUN, "t-2", tokens(40))
    assert refusal == Refusal(f"run:{RUN}", "tokens", 40, 30, passing=True)
    assert (await store.balance("task:t-2")).held == Amount()


async def test_negative_use_is_no_credit(store: Store) -> None:
    """A host that reports less than nothing gets nothing back."""
    assert await store.hold("a-1", RUN, "t-1", tokens(10)) is None
    await store.settle(attempt("a-1"), RUN, Amount(tokens=-50, micro_usd=-1))
    balance = await store.balance("task:t-1")
    assert (balance.settled, balance.held) == (Amount(), Amount())


async def test_a_negative_hold_is_refused(store: Store) -> None:
    """Nobody makes room by holding less than nothing."""
    with pytest.raises(StoreError, match="negative"):
        await store.hold("a-1", RUN, "t-1", tokens(-1))


async def test_an_attempt_ends_once(store: Store) -> None:
    """What was said first stays: in the books and in the journal."""
    assert await store.hold("a-1", RUN, "t-1", tokens(10)) is None
    await store.settle(attempt("a-1", tokens_in=7), RUN, tokens(7))
    await store.void(attempt("a-1", outcome="cancelled"), RUN)
    await store.settle(attempt("a-1", tokens_in=9), RUN, tokens(9))
    assert (await store.balance("task:t-1")).settled == tokens(7)
    assert await store.attempts(RUN) == [attempt("a-1", tokens_in=7)]


async def test_the_end_of_a_run_charges_what_nobody_accounted_for(store: Store) -> None:
    """A hold that is still open was perhaps spent, so it counts as spent."""
    await store.hold("a-1", RUN, "t-1", tokens(10))
    await store.hold("a-2", RUN, "t-1", tokens(20))
    await store.settle(attempt("a-1"), RUN, tokens(3))
    await store.end(RUN, 9.0)
    balance = await store.balance(f"run:{RUN}")
    assert (balance.settled, balance.held) == (tokens(23), Amount())


async def test_an_unknown_account_is_an_error(store: Store) -> None:
    """Neither a balance nor a hold is made up for a task that was not accepted."""
    with pytest.raises(StoreError, match="'task:t-9' does not exist"):
        await store.balance("task:t-9")
    with pytest.raises(StoreError, match="'task:t-9' does not exist"):
        await store.hold("a-1", RUN, "t-9", tokens(1))


async def test_a_caller_who_goes_away_undoes_nothing(store: Store) -> None:
    """A cancelled wait leaves the operation as it is: done, once."""
    waiting = asyncio.create_task(store.hold("a-1", RUN, "t-1", tokens(30)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert (await store.balance("task:t-1")).held == tokens(30)


# --- the journal ------------------------------------------------------------------------------------------------


async def test_a_second_terminal_result_is_refused(store: Store) -> None:
    """A task ends once; the first end stays."""
    await store.finish(RUN, result("t-1", ms=5))
    with pytest.raises(StoreError, match="the ledger refused"):
        await store.finish(RUN, result("t-1", ms=6))
    assert await store.results(RUN) == [result("t-1", ms=5)]


async def test_a_task_is_accepted_once(store: Store) -> None:
    """The second acceptance would be a second budget."""
    with pytest.raises(StoreError, match="the ledger refused"):
        await store.accept(RUN, "t-1", Limit(tokens=1000))
    assert (await store.balance("task:t-1")).limit == Limit(tokens=80)


async def test_tasks_are_kept_as_they_were_accepted(store: Store) -> None:
    """Their bodies, in the order of acceptance, each run's apart; a task without a body is not among them."""
    await store.begin(record("r-2"), Limit())
    for run, task, body in ((RUN, "t-9", b"nine"), ("r-2", "t-5", b"five"), (RUN, "t-3", b"\x00three")):
        await store.accept(run, task, Limit(), body=body)
    with pytest.raises(StoreError, match="exists already"):
        await store.accept(RUN, "t-9", Limit(), body=b"another")
    assert await store.tasks(RUN) == [("t-9", b"nine"), ("t-3", b"\x00three")]
    assert await store.tasks("r-2") == [("t-5", b"five")]
    assert await store.tasks("r-7") == []


@pytest.mark.parametrize("ended", [True, False])
async def test_a_run_is_gone_on_with(store: Store, ended: bool) -> None:
    """It is open again, what its owner had left open is charged, and its tasks may hold."""
    await store.hold("a-1", RUN, "t-1", tokens(20))
    await store.hold("a-2", RUN, "t-1", tokens(30), sent=False)
    if ended:
        await store.end(RUN, 5.0)
    await store.reopen(RUN)
    run = await store.run(RUN)
    assert (run and run.id, run and run.finished) == (RUN, None)
    balance = await store.balance("task:t-1")
    assert (balance.settled, balance.held) == (tokens(20), Amount())
    assert await store.hold("a-3", RUN, "t-1", tokens(60)) is None
    with pytest.raises(StoreError, match="run 'r-9' is not in the store"):
        await store.reopen("r-9")


async def test_a_sound_store_has_no_problems(store: Store) -> None:
    """Whatever was done with it, and however much of it is still open."""
    await store.accept(RUN, "t-2", Limit(), {"s": Limit(tokens=5)}, body=b"body")
    await store.hold("a-1", RUN, "t-1", tokens(20))
    await store.hold("a-2", RUN, "t-2", tokens(5), step="s")
    await store.settle(attempt("a-2", "t-2"), RUN, tokens(9))
    await store.finish(RUN, result("t-2"))
    await store.records.put([Record(kind="note", scope=RUN, key="k", body=b"b")])
    await store.caches.put([Record(kind="answer", scope=RUN, key="k", body=b"b")])
    assert await store.problems() == []


async def test_runs_keep_apart(store: Store) -> None:
    """Each run has its own account, attempts and results; the list has the oldest first."""
    early = RunRecord(id="r-0", swarm="s", plan_hash="h", started=0.5, about={"x": None})
    await store.begin(early, Limit())
    await store.accept("r-0", "t-9", Limit())
    await store.settle(attempt("a-9", "t-9"), "r-0", Amount())
    await store.finish("r-0", result("t-9"))
    await store.end("r-0", 7.5)
    runs = await store.runs()
    assert [run.id for run in runs] == ["r-0", RUN]
    assert (runs[0].finished, runs[1].finished, runs[0].about) == (7.5, None, {"x": None})
    assert await store.run("r-0") == runs[0]
    assert await store.run("r-7") is None
    assert ([a.id for a in await store.attempts("r-0")], await store.attempts(RUN)) == (["a-9"], [])
    assert ([r.task for r in await store.results("r-0")], await store.results(RUN)) == (["t-9"], [])


# --- accounts above accounts ------------------------------------------------------------------------------------


async def test_a_hold_counts_on_every_account_above_it(store: Store) -> None:
    """Step, task, run and tenant: one refusal anywhere, and nothing is held on any of them."""
    await store.tenant("acme", Limit(tokens=50))
    await store.begin(record("r-2"), Limit(tokens=100), "acme")
    await store.accept("r-2", "t-2", Limit(tokens=45), {"reply": Limit(tokens=30)})
    accounts = ("step:t-2/reply", "task:t-2", "run:r-2", "tenant:acme")
    assert await store.hold("a-1", "r-2", "t-2", tokens(20), step="reply") is None
    assert [(await store.balance(account)).held for account in accounts] == [tokens(20)] * 4
    for amount, step, says in ((11, "reply", accounts[0]), (26, None, accounts[1])):
        refusal = await store.hold("a-2", "r-2", "t-2", tokens(amount), step=step)
        assert refusal is not None
        assert refusal.account == says
    await store.accept("r-2", "t-3", Limit())
    assert await store.hold("a-3", "r-2", "t-3", tokens(31)) == Refusal(accounts[3], "tokens", 31, 30, passing=True)
    assert [(await store.balance(account)).held for account in accounts] == [tokens(20)] * 4
    await store.settle(attempt("a-1", "t-2"), "r-2", tokens(15))
    for account in accounts:
        balance = await store.balance(account)
        assert (balance.settled, balance.held) == (tokens(15), Amount())


async def test_a_tenant_outlives_its_runs(store: Store) -> None:
    """What one run has spent, the next one does not have."""
    await store.tenant("acme", Limit(tokens=50))
    for run, amount, left in (("r-2", 30, None), ("r-3", 30, 20)):
        await store.begin(record(run), Limit(), "acme")
        await store.accept(run, f"t-{run}", Limit())
        refusal = await store.hold(f"a-{run}", run, f"t-{run}", tokens(amount))
        assert (refusal and refusal.left) == left
        await store.end(run, 2.0)
    await store.tenant("acme", Limit(tokens=60))
    assert (await store.balance("tenant:acme")).settled == tokens(30)
    with pytest.raises(StoreError, match="the limit of tenant 'acme' is too low, 1 tokens more"):
        await store.tenant("acme", Limit(tokens=29))
    assert (await store.balance("tenant:acme")).limit == Limit(tokens=60)


async def test_time_is_an_account_too_where_it_is_held(store: Store) -> None:
    """Milliseconds are held and refused like tokens; what was never held of them is no overrun."""
    await store.accept(RUN, "t-2", Limit(ms=1000))
    assert await store.hold("a-1", RUN, "t-2", Amount(tokens=5, ms=800)) is None
    assert await store.hold("a-2", RUN, "t-2", Amount(ms=300)) == Refusal("task:t-2", "ms", 300, 200, passing=True)
    assert await store.hold("a-2", RUN, "t-2", tokens(1)) is None
    await store.settle(attempt("a-1", "t-2"), RUN, Amount(tokens=5, ms=900))
    await store.settle(attempt("a-2", "t-2"), RUN, Amount(tokens=1, ms=70))
    balance = await store.balance("task:t-2")
    assert (balance.settled, balance.overrun) == (Amount(tokens=6, ms=800), Amount(ms=100))


async def test_a_hold_names_its_task_s_run(store: Store) -> None:
    """Nobody charges another run's task."""
    await store.begin(record("r-2"), Limit())
    with pytest.raises(StoreError, match="task:t-1 is of run 'r-1', not of 'r-2'"):
        await store.hold("a-1", "r-2", "t-1", tokens(1))


async def test_an_absurd_number_is_refused_and_harms_nobody(store: Store) -> None:
    """What would overflow is no amount, and a provider that reports it is charged its hold."""
    with pytest.raises(StoreError, match="more than any hold may be"):
        await store.hold("a-1", RUN, "t-1", tokens(2**63))
    assert await store.hold("a-2", RUN, "t-1", tokens(7)) is None
    await store.settle(attempt("a-2"), RUN, tokens(2**80))
    balance = await store.balance("task:t-1")
    assert (balance.settled, balance.overrun.tokens > 2**50) == (tokens(7), True)
    with pytest.raises(StoreError, match="cannot be kept"):
        await store.accept(RUN, "t-2", Limit(tokens=2**70))


# --- sent or not ------------------------------------------------------------------------------------------------


async def test_only_what_was_not_sent_expires(store: Store, clock: Clock) -> None:
    """Its room is free again; what may have left stays held for as long as nobody ends it."""
    for id in ("a-1", "a-2"):
        assert await store.hold(id, RUN, "t-1", tokens(20), sent=False, expires_s=5.0) is None
    assert await store.hold("a-3", RUN, "t-1", tokens(20), sent=False) is None
    await store.sent("a-2")
    await store.sent("a-2")
    clock.now += 4.9
    assert (await store.balance("task:t-1")).held == tokens(60)
    clock.now += 0.2
    assert (await store.balance("task:t-1")).held == tokens(40)
    with pytest.raises(StoreError, match="'a-1' is void: the request must not be sent"):
        await store.sent("a-1")
    await store.settle(attempt("a-1"), RUN, tokens(20))
    assert (await store.balance("task:t-1")).settled == Amount()


async def test_a_moved_wall_clock_expires_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time left is measured by the holder, on a clock that only goes on."""
    assert await store.hold("a-1", RUN, "t-1", tokens(20), sent=False, expires_s=5.0) is None
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert (await store.balance("task:t-1")).held == tokens(20)
    await store.sent("a-1")


async def test_what_is_sent_at_once_cannot_expire(store: Store) -> None:
    """Asking for both is a mistake, and is told so."""
    with pytest.raises(StoreError, match="only what is not sent can expire"):
        await store.hold("a-1", RUN, "t-1", tokens(20), expires_s=5.0)


async def test_what_nobody_held_must_not_be_sent(store: Store) -> None:
    """Without a hold nothing leaves."""
    with pytest.raises(StoreError, match="'a-9' is not there: the request must not be sent"):
        await store.sent("a-9")


@pytest.mark.parametrize("by", ["run", "owner", "end"])
async def test_what_was_sent_is_charged_and_what_was_not_is_free(store: Store, by: str) -> None:
    """After a crash nobody knows what the sent ones bought; the others bought nothing."""
    await store.hold("a-1", RUN, "t-1", tokens(10), sent=False)
    await store.hold("a-2", RUN, "t-1", tokens(20))
    await store.hold("a-3", RUN, "t-1", tokens(30), sent=False)
    await store.sent("a-3")
    match by:
        case "run":
            assert await store.recover(run=RUN) == Ended(void=1, settled=2)
        case "owner":
            assert await store.recover(owner="o-other") == Ended()
            assert await store.recover(owner=store.owner) == Ended(void=1, settled=2)  # type: ignore[attr-defined]
        case _:
            await store.end(RUN, 2.0)
    balance = await store.balance(f"run:{RUN}")
    assert (balance.settled, balance.held) == (tokens(50), Amount())
    assert await store.recover(run=RUN) == Ended()


# --- the same again ---------------------------------------------------------------------------------------------


async def test_the_same_key_is_the_same_hold(store: Store) -> None:
    """Asked twice, held once; once it has ended the second is told how, and must not send."""
    for _ in range(2):
        assert await store.hold("a-1", RUN, "t-1", tokens(20), key="k") is None
    assert (await store.balance("task:t-1")).held == tokens(20)
    await store.settle(attempt("a-1"), RUN, tokens(12))
    again = await store.hold("a-1", RUN, "t-1", tokens(20), key="k")
    assert isinstance(again, Repeated)
    assert (again.passing, again.state, again.charged) == (False, "settled", tokens(12))
    assert (await store.balance("task:t-1")).held == Amount()


async def test_a_refused_key_may_try_again(store: Store) -> None:
    """A refusal books nothing, so there is nothing to repeat."""
    await store.hold("a-1", RUN, "t-1", tokens(70))
    assert isinstance(await store.hold("a-2", RUN, "t-1", tokens(20), key="k"), Refusal)
    await store.void(attempt("a-1"), RUN)
    assert await store.hold("a-2", RUN, "t-1", tokens(20), key="k") is None


@pytest.mark.parametrize(("id", "amount"), [("a-2", 20), ("a-1", 21)])
async def test_the_same_key_for_something_else_is_an_error(store: Store, id: str, amount: int) -> None:
    """Nothing is booked for it."""
    await store.hold("a-1", RUN, "t-1", tokens(20), key="k")
    with pytest.raises(KeyConflict, match="the key 'k' stood for another hold"):
        await store.hold(id, RUN, "t-1", tokens(amount), key="k")
    assert (await store.balance("task:t-1")).held == tokens(20)


async def test_an_attempt_that_holds_twice_without_a_key_is_an_error(store: Store) -> None:
    """Two holds of one name could not be told apart."""
    await store.hold("a-1", RUN, "t-1", tokens(20))
    with pytest.raises(StoreError, match="'a-1' has held already"):
        await store.hold("a-1", RUN, "t-1", tokens(20))


async def test_an_end_with_a_key_is_the_same_or_an_error(store: Store) -> None:
    """Said again it changes nothing; said otherwise, by whichever call, it is refused."""
    await store.hold("a-1", RUN, "t-1", tokens(20))
    for _ in range(2):
        await store.settle(attempt("a-1"), RUN, tokens(12), key="k")
    with pytest.raises(KeyConflict):
        await store.settle(attempt("a-1"), RUN, tokens(13), key="k")
    with pytest.raises(KeyConflict, match="has ended otherwise"):
        await store.settle(attempt("a-1"), RUN, tokens(13), key="k2")
    with pytest.raises(KeyConflict):
        await store.void(attempt("a-1"), RUN, key="k")
    await store.settle(attempt("a-1"), RUN, tokens(12), key="k3")
    assert (await store.balance("task:t-1")).settled == tokens(12)


# --- which engine -----------------------------------------------------------------------------------------------


async def test_what_is_kept_nowhere_is_kept_in_plain_objects(tmp_path: Path) -> None:
    """ ":memory:" needs no SQL; anything else that is no address is a file."""
    memory, file = await open_store(":memory:"), await open_store(tmp_path / "s.db")
    assert (type(memory), type(file)) == (MemoryStore, SqliteStore)
    for store in (memory, file):
        await store.close()


async def test_an_address_is_a_server(postgres: Server) -> None:
    """PostgreSQL's own addresses are taken as they are."""
    store = await open_store(postgres.new())
    assert type(store) is PostgresStore
    await store.close()


async def test_without_the_driver_an_address_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra, which other stores do not need."""
    for name in [name for name in sys.modules if name.startswith("swarm.state.postgres.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"needs psycopg; `pip install 'swarmlet\[postgres\]'`"):
        await open_store("postgresql://nowhere/nothing")


async def test_a_closed_store_says_so(place: str) -> None:
    """Work after the end fails at once, and closing twice is fine."""
    store = await open_store(place)
    await store.close()
    await store.close()
    for late in (store.runs, lambda: store.begin(record(), Limit()), lambda: store.caches.get("k", "s", "k")):
        with pytest.raises(StoreError, match="the store was closed"):
            await late()
