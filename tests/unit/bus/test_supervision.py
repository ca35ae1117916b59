"""Hosts that die, hang or dawdle are dealt with; their work is done by others, once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from bus_stage import SERVES, Stage, ask, echo, gather, output, until

from protocols.answers import Answer, Ask, Failed
from protocols.control import Health, Overloaded
from protocols.envelope import Envelope
from protocols.ids import HostId
from swarm.bus import bus as bus_module
from swarm.bus import line as line_module
from swarm.bus.base import Link
from swarm.bus.bus import Bus
from swarm.bus.letters import DeadLetter
from swarm.bus.local import LocalLink
from swarm.bus.scripted import ScriptedHost
from swarm.testing import Dies, Fails, Hangs, Refuses, Says, Script, VirtualClock


def hanging_first(n: int) -> Script:
    """Nothing comes of the first `n` deliveries; the others are answered."""
    script = Script(lambda a: Hangs() if len(script.asks) <= n else echo(a))
    return script


# --- death ------------------------------------------------------------------------------------------------------


async def test_work_of_a_dead_host_goes_to_others_at_once() -> None:
    """Nobody waits for a new host to load its models while another one is up."""
    stage = Stage(hanging_first(6), hosts=2)
    stage.revivals_may_end.clear()
    async with stage.bus as bus:
        waiting = [asyncio.create_task(bus.ask(ask(f"a-{i}"))) for i in range(6)]
        await stage.until_delivered(6)
        stage.host("host-1").die()
        replies = [await waiting[i] for i in (1, 3, 5)]
        assert {reply.host for reply in replies} == {"host-0"}
        assert bus.statistics().hosts == {"host-0": "up", "host-1": "starting"}
        for task in waiting:
            task.cancel()


async def test_an_ask_that_has_seen_two_deaths_waits_for_a_fresh_host() -> None:
    """It goes to no host that works for others; what it shared its two hosts with is answered."""
    stage = Stage(lambda a: Dies() if a.id == "poison" else echo(a), hosts=3)
    async with stage.bus as bus:
        poison, *others = await gather(bus, ask("poison"), *(ask(f"a-{i}") for i in range(30)))
        assert isinstance(poison, Failed)
        assert poison.reason == "host_died"
        assert [output(reply) for reply in others] == [{"id": f"a-{i}"} for i in range(30)]
        assert [a.id for a in stage.script.asks].count("poison") == 3
        await until(lambda: bus.statistics().restarts == 3)
        assert set(bus.statistics().hosts.values()) == {"up"}


async def test_a_host_that_was_given_up_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before its deaths are a minute ago."""
    monkeypatch.setattr(bus_module, "REST_S", 0.001)
    clock = VirtualClock()
    stage = Stage(clock=clock)
    async with stage.bus as bus:
        for _ in range(3):
            await stage.die()
        stage.host().die()
        await until(lambda: bus.statistics().hosts == {"host-0": "given_up"})
        await asyncio.sleep(0.01)
        assert bus.statistics().restarts == 3
        clock.advance(60)
        await until(lambda: bus.statistics().hosts == {"host-0": "up"})
        assert output(await bus.ask(ask("a-1"))) == {"id": "a-1"}


async def test_a_last_delivery_that_kills_nobody_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those behind it are sent after a while, though it is not answered."""
    monkeypatch.setattr(line_module, "ALONE_S", 0.01)
    stage = Stage({"s": [Dies(), Dies(), Hangs(), Says({"label": "x"})]})
    async with stage.bus as bus:
        suspect = asyncio.create_task(bus.ask(ask("a-1")))
        await stage.until_delivered(3)
        assert output(await bus.ask(ask("a-2"))) == {"label": "x"}
        suspect.cancel()


async def test_what_must_not_be_repeated_is_delivered_once() -> None:
    """Nobody knows whether its host did it, so it ends there and then; what was not delivered yet is not lost."""
    stage = Stage({"s": [Refuses(), Hangs(), Says({"label": "x"})]}, hosts=2)
    async with stage.bus as bus:
        write = asyncio.create_task(bus.ask(msgspec.structs.replace(ask("write"), once=True)))
        await stage.until_delivered(2)
        stage.host("host-0").die("out of memory")
        reply = await write
        assert isinstance(reply, Failed)
        assert (reply.reason, reply.unknown, bus.statistics().redelivered) == ("host_died", True, 0)
        assert "out of memory" in stage.kept[0].cause
    assert [a.id for a in stage.script.asks] == ["write", "write"], "refused once, delivered once"


# --- what raises ------------------------------------------------------------------------------------------------


async def test_what_raises_is_a_dead_letter_after_three_attempts() -> None:
    """With its cause; its neighbours do not notice."""
    stage = Stage(lambda a: Fails("tool_error", "division by zero") if a.id == "poison" else echo(a))
    async with stage.bus as bus:
        poison, *others = await gather(bus, ask("poison", left_ms=60_000), *(ask(f"a-{i}") for i in range(5)))
        assert isinstance(poison, Failed)
        assert (poison.reason, poison.detail) == ("tool_error", "division by zero")
        assert [output(reply) for reply in others] == [{"id": f"a-{i}"} for i in range(5)]
    (letter,) = stage.kept
    assert (letter.envelope.delivery, letter.cause) == (3, "division by zero")
    assert [a.id for a in stage.script.asks].count("poison") == 3


async def test_what_raises_once_is_answered() -> None:
    """The second attempt counts, and nothing is given up."""
    stage = Stage({"s": [Fails("error"), Says({"label": "x"})]})
    async with stage.bus as bus:
        assert output(await bus.ask(ask("a-1"))) == {"label": "x"}
    assert stage.kept == []


@pytest.mark.parametrize(
    "fails", [Fails("tool_error", micro_usd=1), Fails("error", unknown=True), Fails("invalid_output"), Fails("timeout")]
)
async def test_what_was_paid_or_did_not_raise_is_not_repeated(fails: Fails) -> None:
    """Whoever pays decides on that."""
    stage = Stage({"s": [fails, Says({"label": "x"})]})
    async with stage.bus as bus:
        assert isinstance(await bus.ask(ask("a-1")), Failed)
    assert (len(stage.script.asks), stage.kept) == (1, [])


async def test_a_write_that_raises_is_not_repeated() -> None:
    """It may have written before it raised."""
    stage = Stage({"s": [Fails("tool_error"), Says({"label": "x"})]})
    async with stage.bus as bus:
        assert isinstance(await bus.ask(msgspec.structs.replace(ask("write"), once=True)), Failed)
    assert len(stage.script.asks) == 1


# --- time -------------------------------------------------------------------------------------------------------


async def test_what_a_host_does_not_end_in_time_is_ended_here() -> None:
    """Two seconds after its time was up; the host is told, and what it says then counts for nothing."""
    clock = VirtualClock()
    stage = Stage(lambda _: Hangs(), clock=clock)
    async with stage.bus as bus:
        late = asyncio.create_task(bus.ask(ask("late", left_ms=1000)))
        endless = asyncio.create_task(bus.ask(ask("endless")))
        await stage.until_delivered(2)
        clock.advance(3.0)
        bus.look()
        await asyncio.sleep(0)
        assert not late.done()
        clock.advance(0.1)
        bus.look()
        reply = await late
        assert isinstance(reply, Failed)
        assert (reply.reason, reply.unknown) == ("timeout", True)
        assert "host 'host-0' did not end it within 2 s" in reply.detail
        await until(lambda: stage.host().cancelled == ["late"])
        assert not endless.done()
        assert (bus.statistics().overdue, bus.statistics().answered) == (1, {"host-0": 0})
        endless.cancel()


async def test_what_was_never_sent_costs_nothing_when_its_time_is_up() -> None:
    """A full mailbox is no reason to charge anybody."""
    clock = VirtualClock()
    stage = Stage(lambda _: Refuses(60_000), clock=clock)
    async with stage.bus as bus:
        waiting = asyncio.create_task(bus.ask(ask("a-1", left_ms=1000)))
        await stage.until_delivered(1)
        clock.advance(3.1)
        bus.look()
        reply = await waiting
        assert isinstance(reply, Failed)
        assert (reply.reason, reply.unknown, stage.host().cancelled) == ("timeout", False, [])


# --- slow hosts -------------------------------------------------------------------------------------------------


class Hand:
    """A link to a host that answers when the test says so."""

    def __init__(self, host: HostId) -> None:
        self.host = host
        self.taken: list[Ask] = []
        self._ready: asyncio.Queue[Envelope] = asyncio.Queue()

    def answer_all(self) -> None:
        for a in self.taken:
            body = Answer(id=a.id, output={}, host=self.host)
            self._ready.put_nowait(Envelope(to="dispatcher", sender=self.host, body=body))
        self.taken.clear()

    async def deliver(self, batch: Sequence[Envelope]) -> list[Overloaded]:
        self.taken += [envelope.body for envelope in batch if isinstance(envelope.body, Ask)]
        return []

    async def collect(self) -> list[Envelope]:
        return [await self._ready.get()]

    async def health(self) -> Health:
        return Health(host=self.host, waiting=0, running=0, answered=0, rss_bytes=0)

    async def close(self) -> None:
        """Nothing to end."""


async def no_revival(_: HostId) -> Link:
    raise AssertionError("nobody has died")


async def paced(bus: Bus, clock: VirtualClock, fast: Hand, slow: Hand, rounds: int, slower: float) -> None:
    """Each host gets as many asks; one takes a second, the other `slower` times as long."""
    for i in range(rounds):
        waiting = [asyncio.create_task(bus.ask(ask(f"a-{i}-{j}"))) for j in range(2)]
        await until(lambda: len(fast.taken) == len(slow.taken) == 1)
        clock.advance(1.0)
        fast.answer_all()
        await until(lambda w=waiting: any(task.done() for task in w))  # type: ignore[misc]
        clock.advance(slower - 1.0)
        slow.answer_all()
        await asyncio.gather(*waiting)
        bus.look()


async def test_a_slow_host_is_spared_while_another_can_work() -> None:
    """At a fifth of the other's speed it gets nothing new for half a minute; then it gets another chance."""
    clock = VirtualClock()
    fast, slow = Hand("host-0"), Hand("host-1")
    async with Bus([(fast, SERVES), (slow, SERVES)], no_revival, clock=clock) as bus:
        await paced(bus, clock, fast, slow, 8, 5.0)
        assert bus.statistics().hosts == {"host-0": "up", "host-1": "up"}, "too little is known yet"
        await paced(bus, clock, fast, slow, 2, 5.0)
        assert bus.statistics().hosts == {"host-0": "up", "host-1": "slow"}
        waiting = [asyncio.create_task(bus.ask(ask(f"b-{i}"))) for i in range(10)]
        await until(lambda: len(fast.taken) == 10)
        clock.advance(30.0)
        bus.look()
        assert bus.statistics().hosts == {"host-0": "up", "host-1": "up"}
        fast.answer_all()
        await asyncio.gather(*waiting)


async def test_a_host_that_is_a_little_slower_is_not_spared() -> None:
    """Three times as long is a busy machine."""
    clock = VirtualClock()
    fast, slow = Hand("host-0"), Hand("host-1")
    async with Bus([(fast, SERVES), (slow, SERVES)], no_revival, clock=clock) as bus:
        await paced(bus, clock, fast, slow, 20, 3.0)
        assert bus.statistics().hosts == {"host-0": "up", "host-1": "up"}


async def test_a_slow_host_works_where_nobody_else_can() -> None:
    """What only it serves is still asked of it."""
    clock = VirtualClock()
    fast, slow = Hand("host-0"), Hand("host-1")
    both = SERVES | {("s", "large")}
    async with Bus([(fast, SERVES), (slow, both)], no_revival, clock=clock) as bus:
        await paced(bus, clock, fast, slow, 10, 5.0)
        waiting = asyncio.create_task(bus.ask(ask("only", "large")))
        await until(lambda: len(slow.taken) == 1)
        slow.answer_all()
        assert (await waiting).host == "host-1"


# --- too much ---------------------------------------------------------------------------------------------------


async def test_what_finds_too_many_waiting_is_refused_at_once() -> None:
    """With a time to come back; nothing of it is sent, and there is room again as soon as one is over."""
    stage = Stage(lambda _: Hangs(), room=3)
    async with stage.bus as bus:
        waiting = [asyncio.create_task(bus.ask(ask(f"a-{i}"))) for i in range(3)]
        await stage.until_delivered(3)
        reply = await bus.ask(ask("a-3"))
        assert isinstance(reply, Failed)
        assert (reply.reason, reply.retryable, reply.unknown, reply.retry_ms) == ("overloaded", True, False, 500)
        assert reply.detail == "3 asks of 's' wait for tier 'small' of host 'host-0'; come back in 500 ms"
        assert (len(stage.script.asks), bus.statistics().refused) == (3, 1)
        waiting.pop().cancel()
        await until(lambda: bus.statistics().unanswered == 2)
        waiting.append(asyncio.create_task(bus.ask(ask("a-4"))))
        await stage.until_delivered(4)
        for task in waiting:
            task.cancel()


# --- dead letters -----------------------------------------------------------------------------------------------


async def test_every_dead_letter_is_handed_on() -> None:
    """To be kept: the ask, how often it was delivered, and the cause."""
    stage = Stage(lambda _: Dies("out of memory"))
    async with stage.bus as bus:
        await bus.ask(ask("poison"))
        (letter,) = stage.kept
        assert (letter.envelope.body, letter.envelope.delivery) == (ask("poison"), 3)
        assert "out of memory" in letter.cause
        assert bus.statistics().dead_letters == (letter,)


async def test_a_keeper_that_fails_harms_nobody() -> None:
    """The ask is answered all the same, and the bus goes on."""

    def keep(_: DeadLetter) -> None:
        raise OSError("disk full")

    script = Script(lambda a: Dies() if a.id == "poison" else echo(a))

    async def revive(host: HostId) -> Link:
        return LocalLink(host, ScriptedHost(script, host=host))

    async with Bus([(await revive("host-0"), SERVES)], revive, keep=keep) as bus:
        assert isinstance(await bus.ask(ask("poison")), Failed)
        assert output(await bus.ask(ask("a-1"))) == {"id": "a-1"}


# --- hosts that answer where they are asked ---------------------------------------------------------------------


class Endless(ScriptedHost):
    """A host that takes asks at its desk and never answers."""

    async def answer(self, ask: Ask) -> Answer | Failed | Overloaded:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets this event")


async def test_asks_answered_in_this_process_are_counted_and_end_with_the_bus() -> None:
    """Closing ends the work, and its caller goes on with a reply that says so."""
    host = Endless(Script(echo), host="host-0")

    async def asks(bus: Bus) -> str:
        reply = await bus.ask(ask("a-1"))
        await asyncio.sleep(0)  # he was not cancelled: his work was
        assert isinstance(reply, Failed)
        return reply.detail

    async with Bus([(LocalLink("host-0", host), SERVES)], no_revival) as bus:
        caller = asyncio.create_task(asks(bus))
        await until(lambda: bus.statistics().unanswered == 1)
    assert await caller == "the swarm was closed"
    assert bus.statistics().unanswered == 0


async def test_a_caller_that_is_cancelled_while_the_bus_closes_is_cancelled() -> None:
    """His wish goes before ours."""
    host = Endless(Script(echo), host="host-0")
    async with Bus([(LocalLink("host-0", host), SERVES)], no_revival) as bus:
        caller = asyncio.create_task(bus.ask(ask("a-1")))
        await until(lambda: bus.statistics().unanswered == 1)
        caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
