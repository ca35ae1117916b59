"""Dead letters last, and what they asked can be asked again."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from protocols.answers import Ask
from protocols.control import Cancel
from protocols.envelope import Envelope
from protocols.ids import HostId
from protocols.money import Limit
from swarm.bus.base import Link
from swarm.bus.bus import Bus
from swarm.bus.letters import DeadLetter
from swarm.bus.local import LocalLink
from swarm.bus.scripted import ScriptedHost
from swarm.errors import StoreError, SwarmError
from swarm.runtime.hosts import Hosts
from swarm.runtime.in_process import InProcessRuntime
from swarm.runtime.launch import planned
from swarm.runtime.letters import KIND, Letters, letters
from swarm.runtime.retry import retried
from swarm.runtime.run import Shop
from swarm.state.memory import MemoryStore
from swarm.state.records import Record
from swarm.testing import Fails, Says, Script

SWARM = """\
schema: swarm/v1
name: shop
models: {head: all-MiniLM-L6-v2, small: smollm2-135m-instruct}
specialists:
  mood:
    kind: classify
    labels: {happy: pleased, unhappy: upset}
    examples: {happy: [a, b], unhappy: [c, d]}
    tiers: [small]
steps:
  mood: {specialist: mood, input: {text: "${input.text}"}}
budget: {task: {tokens: 5000}, run: {tokens: 5000}}
"""
ASK = Ask(id="a-1", task="t-1", step="mood", specialist="mood", tier="small", input={"text": "Hm."}, max_tokens=9)


def letter(body: Ask | Cancel = ASK, cause: str = "out of memory") -> DeadLetter:
    return DeadLetter(Envelope(to="host-0", sender="dispatcher", body=body, delivery=3), cause)


async def test_letters_are_kept_with_the_run_that_is_worked_on() -> None:
    """By what was asked, with the cause; a stray message gets a name of its own."""
    store = MemoryStore()
    kept = Letters(store.records, "r-1")
    kept.keep(letter())
    kept.keep(letter(Cancel(id="x"), "the dispatcher takes answers only"))
    kept.run = "r-2"
    kept.keep(letter(msgspec.structs.replace(ASK, id="a-2")))
    await kept.close()
    first, second = await letters(store.records, "r-1"), await letters(store.records, "r-2")
    assert (first["a-1"][1], list(second)) == (letter(), ["a-2"])
    assert {each.cause for _, each in first.values()} == {"out of memory", "the dispatcher takes answers only"}
    assert all(at > 0 for at, _ in first.values())


async def test_many_letters_are_all_found() -> None:
    """Also those beyond a page of the store."""
    store = MemoryStore()
    body = msgspec.msgpack.encode(letter())
    await store.records.put([Record(kind=KIND, scope="r-1", key=f"a-{i:05}", body=body) for i in range(1500)])
    assert len(await letters(store.records, "r-1")) == 1500


async def test_a_store_that_fails_harms_nobody() -> None:
    """The letter is in the log, and closing goes on."""
    store = MemoryStore()
    await store.close()
    kept = Letters(store.records, "r-1")
    kept.keep(letter())
    await kept.close()
    with pytest.raises(StoreError):
        await letters(store.records, "r-1")


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """A swarm whose small model says what `script` says."""
    (tmp_path / "shop.yaml").write_text(SWARM)
    plan = planned(tmp_path / "shop.yaml")
    script = Script({"mood": [Says({"label": "happy"}, confidence=0.9, tokens=7), Fails("error", "lost", tokens=3)]})
    link = LocalLink("local", ScriptedHost(script, host="local"))

    async def revive(_: HostId) -> Link:
        raise AssertionError("nobody has died")

    async with Bus([(link, frozenset({("mood", "small")}))], revive, max_deliveries=1) as bus:
        yield Shop(plan, MemoryStore(), Hosts([], InProcessRuntime(), InProcessRuntime()), bus, {}, {})


async def test_a_retry_is_a_run_of_its_own(shop: Shop) -> None:
    """With one task of one attempt, held, paid and journalled like any other; its answer is the result."""
    result = await retried(shop, ASK)
    assert (result.status, result.output, result.cost.tokens) == ("done", {"mood": {"label": "happy"}}, 7)
    (run,) = await shop.store.runs()
    (attempt,) = await shop.store.attempts(run.id)
    assert (attempt.step, attempt.tier, attempt.outcome, attempt.id != ASK.id) == ("mood", "small", "accepted", True)
    assert await shop.store.results(run.id) == [result]
    assert (await shop.store.balance(f"run:{run.id}")).settled.tokens == 7
    assert run.finished is not None
    await shop.store.check()


async def test_a_retry_that_fails_says_why(shop: Shop) -> None:
    """It is no error of the command: the tier was asked, and that is what came of it."""
    await retried(shop, ASK)
    result = await retried(shop, ASK)
    assert (result.status, result.reason) == ("failed", "error: lost")


async def test_a_retry_keeps_to_the_budget(shop: Shop) -> None:
    """A hold that is refused ends it."""
    plan = dataclasses.replace(shop.plan, task_limit=Limit(tokens=1))
    result = await retried(dataclasses.replace(shop, plan=plan), ASK)
    assert result.status == "budget_exhausted"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"tier": "large"}, "has no tier 'large' of step 'mood' any more"),
        ({"once": True}, "writes to the world outside"),
    ],
)
async def test_what_cannot_be_asked_again_is_said(shop: Shop, change: dict[str, object], why: str) -> None:
    """Nothing is begun then."""
    with pytest.raises(SwarmError, match=why):
        await retried(shop, msgspec.structs.replace(ASK, **change))
    assert await shop.store.runs() == []
