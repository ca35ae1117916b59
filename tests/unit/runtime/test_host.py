"""A host answers every ask that it takes exactly once, and takes no more than it has room for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import structlog

from protocols.answers import Answer, Ask, Failed, Reason, Usage
from protocols.control import Cancel, HostSpec, ModelSpec, Overloaded
from protocols.envelope import Envelope, Message
from swarm.errors import EngineClosed, EngineCrashed, OutOfTime, PromptTooLong, RemoteError, SchemaUnsupported
from swarm.models.store import ModelStore
from swarm.runtime import host as host_module
from swarm.runtime.host import Host
from swarm.runtime.workshop import Workshop
from swarm.state.fits import FitCache

SPEC = HostSpec(
    host="host-0",
    packs={},
    tiers={"s": ("small", "remote")},
    models={"remote": ModelSpec(tier="remote", kind="remote", name="gpt")},
    mailbox=3,
)


class Bench(Workshop):
    """A workshop whose only work is the function that a test hands in."""

    def __init__(self, work: Callable[[Ask], Awaitable[Answer | Failed]], home: Path) -> None:
        super().__init__(SPEC, ModelStore(), FitCache(home))
        self._work = work
        self.begun: list[str] = []
        self.closed = 0

    async def answer(self, ask: Ask) -> Answer | Failed:
        self.begun.append(ask.id)
        return await self._work(ask)

    def close(self) -> None:
        self.closed += 1
        super().close()


class Desk:
    """One host with the gate that its work waits at."""

    def __init__(self, home: Path) -> None:
        self.gate = asyncio.Event()
        self.error: Exception | None = None
        self.output: dict[str, object] = {"label": "x"}
        self.bench = Bench(self.work, home)
        self.host = Host(SPEC, self.bench, node="n")

    async def work(self, ask: Ask) -> Answer | Failed:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Answer(id=ask.id, output=self.output, usage=Usage(tokens_in=7, ms=999))

    def deliver(self, *bodies: Message) -> list[Overloaded]:
        return self.host.deliver([Envelope(to="host-0", sender="dispatcher", body=body) for body in bodies])

    async def replies(self, n: int) -> list[Answer | Failed]:
        """The next `n` answers that the host sends."""
        found: list[Answer | Failed] = []
        while len(found) < n:
            for envelope in await self.host.collect():
                assert isinstance(envelope.body, Answer | Failed)
                assert (envelope.to, envelope.sender) == ("dispatcher", "host-0")
                found.append(envelope.body)
        assert len(found) == n
        return found

    async def reply_to(self, ask: Ask) -> Answer | Failed:
        self.gate.set()
        self.deliver(ask)
        (reply,) = await self.replies(1)
        return reply


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.host.close()


def ask(id: str = "a-1", tier: str = "small", left_ms: int | None = None) -> Ask:
    return Ask(id=id, task="t", step="s", specialist="s", tier=tier, input={}, max_tokens=0, left_ms=left_ms)


async def test_an_answer_says_who_gave_it_and_how_long_it_took(desk: Desk) -> None:
    """The host's name and clock are put on the reply; what the specialist counted stays."""
    reply = await desk.reply_to(ask())
    assert isinstance(reply, Answer)
    assert (reply.id, reply.output, reply.host, reply.usage.tokens_in) == ("a-1", {"label": "x"}, "host-0", 7)
    assert reply.usage.ms != 999


async def test_the_mailbox_is_bounded(desk: Desk) -> None:
    """What does not fit is refused by name; as soon as one is done there is room for one more."""
    refused = desk.deliver(*(ask(f"a-{i}") for i in range(5)))
    assert refused == [Overloaded(id="a-3", host="host-0"), Overloaded(id="a-4", host="host-0")]
    assert desk.deliver(ask("a-5")) == [Overloaded(id="a-5", host="host-0")]
    desk.gate.set()
    await desk.replies(3)
    assert desk.deliver(ask("a-3"), ask("a-4")) == []
    assert {reply.id for reply in await desk.replies(2)} == {"a-3", "a-4"}


async def test_one_kind_of_ask_does_not_fill_the_mailbox_alone(tmp_path: Path) -> None:
    """A quarter of it is left to the others; of what there is only one kind of may be as many as fit."""
    for tiers, most in ((("small", "remote"), 6), (("small",), 8)):
        spec = msgspec.structs.replace(SPEC, mailbox=8, tiers={"s": tiers})
        host = Host(spec, Desk(tmp_path).bench, node="n")
        batch = [Envelope(to="host-0", sender="dispatcher", body=ask(f"a-{i}")) for i in range(9)]
        assert [refusal.id for refusal in host.deliver(batch)] == [f"a-{i}" for i in range(most, 9)]
        other = Envelope(to="host-0", sender="dispatcher", body=ask("b-0", "remote"))
        assert bool(host.deliver([other])) == (len(tiers) == 1)
        host.close()


async def test_what_raised_may_be_tried_again(desk: Desk) -> None:
    """A second delivery is worked on again; it may go well."""
    desk.error = RuntimeError("lost")
    assert isinstance(await desk.reply_to(ask()), Failed)
    desk.error = None
    assert isinstance(await desk.reply_to(ask()), Answer)
    assert desk.bench.begun == ["a-1", "a-1"]


async def test_an_ask_delivered_twice_is_worked_on_once(desk: Desk) -> None:
    """While it runs the second delivery is dropped; after that it gets the same answer again."""
    assert desk.deliver(ask(), ask()) == []
    await asyncio.sleep(0)
    assert desk.deliver(ask()) == []
    desk.gate.set()
    (first,) = await desk.replies(1)
    desk.output = {"label": "another"}
    desk.deliver(ask())
    (second,) = await desk.replies(1)
    assert second == first
    assert desk.bench.begun == ["a-1"]


async def test_a_repeated_ask_needs_no_room(desk: Desk) -> None:
    """A full mailbox does not refuse what it has already, or has answered."""
    desk.gate.set()
    await desk.reply_to(ask("old"))
    desk.gate.clear()
    desk.deliver(*(ask(f"a-{i}") for i in range(3)))
    assert desk.deliver(ask("a-1"), ask("old")) == []
    assert [reply.id for reply in await desk.replies(1)] == ["old"]


async def test_the_oldest_answers_are_forgotten(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for repeated asks is bounded; what is forgotten is worked on again."""
    monkeypatch.setattr(host_module, "REMEMBERED", 2)
    for id in ("a-1", "a-2", "a-3", "a-3", "a-1"):
        await desk.reply_to(ask(id))
    assert desk.bench.begun == ["a-1", "a-2", "a-3", "a-1"]


async def test_work_that_takes_too_long_is_a_timeout(desk: Desk) -> None:
    """The deadline travels as time left, and ends the work itself."""
    desk.deliver(ask(left_ms=1))
    (reply,) = await desk.replies(1)
    assert isinstance(reply, Failed)
    assert (reply.reason, reply.detail, reply.host) == ("timeout", "no time left after 1 ms", "host-0")
    assert desk.host.health().running == 0


@pytest.mark.parametrize(("tier", "unknown"), [("small", False), ("remote", True)])
@pytest.mark.parametrize("end", ["timeout", "error"])
async def test_a_paid_call_that_ended_badly_may_have_been_billed(
    desk: Desk, tier: str, unknown: bool, end: str
) -> None:
    """Nobody saw the bill, so it is said to be unknown; local work costs nothing."""
    desk.error = RuntimeError("lost")
    if end == "error":
        desk.gate.set()
    desk.deliver(ask(tier=tier, left_ms=1 if end == "timeout" else None))
    (reply,) = await desk.replies(1)
    assert isinstance(reply, Failed)
    assert (reply.reason, reply.unknown) == (end, unknown)


@pytest.mark.parametrize(
    ("error", "reason", "retryable", "unknown"),
    [
        (PromptTooLong("9,000 tokens"), "too_long", False, False),
        (SchemaUnsupported("$ref"), "invalid_output", False, False),
        (EngineClosed("closed"), "unavailable", True, False),
        (EngineCrashed("SIGSEGV"), "unavailable", True, False),
        (OutOfTime("1.5 s"), "timeout", False, False),
        (RemoteError("429", True, False), "unavailable", True, False),
        (RemoteError("no answer", False, True), "unavailable", False, True),
        (ValueError("a mistake"), "error", False, False),
    ],
)
async def test_an_exception_is_a_failure(
    desk: Desk, error: Exception, reason: Reason, retryable: bool, unknown: bool
) -> None:
    """Each kind of error has its reason, and the host works on."""
    desk.error = error
    reply = await desk.reply_to(ask())
    assert isinstance(reply, Failed)
    assert (reply.reason, reply.retryable, reply.unknown) == (reason, retryable, unknown)
    assert str(error) in reply.detail
    desk.error = None
    assert isinstance(await desk.reply_to(ask("a-2")), Answer)


@pytest.mark.parametrize("value", ["\ud800", 2**70, object()])
async def test_an_answer_that_cannot_travel_is_a_failure(desk: Desk, value: object) -> None:
    """Here as on a cluster: what no wire carries is no answer, and takes no other answer with it."""
    desk.output = {"label": value}
    reply = await desk.reply_to(ask())
    assert isinstance(reply, Failed)
    assert reply.reason == "invalid_output"
    assert "cannot be sent" in reply.detail
    assert reply.usage.tokens_in == 7


async def test_cancel_ends_the_work(desk: Desk) -> None:
    """The running work is stopped and the room is free again; a cancel for nobody does nothing."""
    desk.deliver(ask("a-1"), ask("a-2"), ask("a-3"))
    await asyncio.sleep(0)
    desk.deliver(Cancel(id="a-2"), Cancel(id="nobody"))
    (reply,) = await desk.replies(1)
    assert isinstance(reply, Failed)
    assert (reply.id, reply.reason) == ("a-2", "cancelled")
    assert desk.host.health().running == 2
    assert desk.deliver(ask("a-4")) == []


async def test_cancel_in_the_same_batch_leaves_no_trace(desk: Desk) -> None:
    """Work that was cancelled before it began does not keep its place in the mailbox."""
    for i in range(10):
        assert desk.deliver(ask(f"a-{i}"), Cancel(id=f"a-{i}")) == []
        (reply,) = await desk.replies(1)
        assert isinstance(reply, Failed)
        assert (reply.id, reply.reason) == (f"a-{i}", "cancelled")
    assert desk.bench.begun == []
    assert desk.host.health().running == 0


async def test_a_caller_in_this_process_is_answered_without_a_message(desk: Desk) -> None:
    """The answer is the one that would have been sent, and nothing waits to be collected."""
    desk.gate.set()
    reply = await desk.host.answer(ask())
    assert isinstance(reply, Answer)
    assert (reply.id, reply.output, reply.host, reply.usage.tokens_in) == ("a-1", {"label": "x"}, "host-0", 7)
    health = desk.host.health()
    assert (health.running, health.waiting, health.answered) == (0, 0, 1)


async def test_the_ids_of_logs_are_those_of_the_work_at_hand(desk: Desk) -> None:
    """Also where the caller has ids of his own by these names, which he finds again."""
    seen: list[dict[str, object]] = []

    async def work(ask: Ask) -> Answer | Failed:
        seen.append(structlog.contextvars.merge_contextvars(None, "info", {}))
        return Answer(id=ask.id, output={})

    desk.bench._work = work
    with structlog.contextvars.bound_contextvars(task_id="mine", shop="books"):
        await desk.host.answer(ask())
        await desk.reply_to(ask("a-2"))
        after = structlog.contextvars.merge_contextvars(None, "info", {})
    assert seen == [{"task_id": "t", "step": "s", "tier": "small", "shop": "books"}] * 2
    assert after == {"task_id": "mine", "shop": "books"}


async def test_a_caller_in_this_process_needs_room_too(desk: Desk) -> None:
    """It takes a place in the mailbox while it is answered, and is refused where there is none."""
    callers = [asyncio.create_task(desk.host.answer(ask(f"a-{i}"))) for i in range(3)]
    await asyncio.sleep(0)
    assert await desk.host.answer(ask("a-3")) == Overloaded(id="a-3", host="host-0")
    assert desk.deliver(ask("a-4")) == [Overloaded(id="a-4", host="host-0")]
    desk.gate.set()
    assert [reply.id for reply in await asyncio.gather(*callers)] == ["a-0", "a-1", "a-2"]
    assert isinstance(await desk.host.answer(ask("a-3")), Answer)


async def test_cancelling_a_caller_in_this_process_ends_its_work(desk: Desk) -> None:
    """The work is cancelled where it waits, and its place is free again."""
    caller = asyncio.create_task(desk.host.answer(ask()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert (desk.bench.begun, desk.host.health().running) == (["a-1"], 0)


async def test_what_is_no_order_is_ignored(desk: Desk) -> None:
    """A message that hosts do not take changes nothing."""
    assert desk.deliver(Answer(id="a-1", output={}), ask()) == []
    desk.gate.set()
    assert [reply.id for reply in await desk.replies(1)] == ["a-1"]


async def test_collecting_returns_empty_after_a_while(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with nothing to say says so, so that its caller sees that it lives."""
    monkeypatch.setattr(host_module, "COLLECT_WAIT_S", 0.0)
    assert await desk.host.collect() == []


async def test_health_counts(desk: Desk) -> None:
    """What runs, what waits to be collected, what was answered; and a process has some memory."""
    desk.deliver(ask("a-1"), ask("a-2"))
    health = desk.host.health()
    assert (health.host, health.running, health.waiting, health.answered) == ("host-0", 2, 0, 0)
    desk.gate.set()
    while desk.host.health().running:  # noqa: ASYNC110 (a host tells nobody)
        await asyncio.sleep(0)
    health = desk.host.health()
    assert (health.running, health.waiting, health.answered) == (0, 2, 2)
    assert health.rss_bytes > 1_000_000


async def test_closing_cancels_and_frees(desk: Desk) -> None:
    """What runs is cancelled, the models are freed."""
    desk.deliver(ask())
    await asyncio.sleep(0)
    desk.host.close()
    (reply,) = await desk.replies(1)
    assert isinstance(reply, Failed)
    assert (reply.reason, desk.bench.closed) == ("cancelled", 1)
