"""Asks find a host, answers find their asks, and the death of a host loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from bus_stage import SERVES, Stage, ask, echo, gather, output, until

from protocols.answers import Answer, Ask, Failed
from protocols.control import Cancel, Health, Overloaded
from protocols.envelope import Envelope, Message
from protocols.ids import HostId
from swarm.bus.base import Link
from swarm.bus.bus import Bus
from swarm.bus.local import LocalLink
from swarm.bus.scripted import ScriptedHost
from swarm.testing import Dies, Hangs, Refuses, Says, Script, VirtualClock

# --- there and back ---------------------------------------------------------------------------------------------


async def test_answers_reach_their_asks_over_many_hosts() -> None:
    """Three hundred asks over four hosts: each gets its own answer, and every host gets its share."""
    stage = Stage(hosts=4)
    async with stage.bus as bus:
        replies = await gather(bus, *(ask(f"a-{i}") for i in range(300)))
        assert [output(reply) for reply in replies] == [{"id": f"a-{i}"} for i in range(300)]
        assert bus.statistics().answered == {f"host-{i}": 75 for i in range(4)}
        assert bus.statistics().unanswered == 0


async def test_the_least_busy_host_is_chosen() -> None:
    """A host that still owes answers gets the next ask only when the others owe as many."""
    stage = Stage(lambda a: Hangs() if a.id.startswith("slow") else echo(a), hosts=2)
    async with stage.bus as bus:
        slow = [asyncio.create_task(bus.ask(ask(f"slow-{i}"))) for i in range(3)]
        await stage.until_delivered(3)
        owed = {reply.host for reply in await gather(bus, ask("a-1"))}
        for _ in range(5):
            assert {reply.host for reply in await gather(bus, ask("a-2"))} == owed, "host-1 owes one, host-0 two"
        for task in slow:
            task.cancel()


async def test_what_no_host_serves_is_unavailable() -> None:
    """The reply names the specialist and the tier."""
    stage = Stage()
    async with stage.bus as bus:
        reply = await bus.ask(ask("a-1", "remote"))
    assert isinstance(reply, Failed)
    assert (reply.reason, reply.detail) == ("unavailable", "no host serves tier 'remote' of 's'")


async def test_the_time_left_shrinks_while_an_ask_waits() -> None:
    """What travels is the time left at the moment of sending, and never less than nothing."""
    clock = VirtualClock(1000.0)
    stage = Stage({"s": [Refuses(), Says({}), Refuses(), Says({})]}, clock=clock)
    async with stage.bus as bus:
        waiting = asyncio.create_task(bus.ask(ask("a-1", left_ms=5000)))
        await stage.until_delivered(1)
        clock.advance(2.0)
        await waiting
        late = asyncio.create_task(bus.ask(ask("a-2", left_ms=100)))
        await stage.until_delivered(3)
        clock.advance(2.0)
        await late
    assert [a.left_ms for a in stage.script.asks] == [5000, 3000, 100, 0]


async def test_hosts_tell_how_they_are() -> None:
    """One look at every host that answers; a dead one is left out."""
    stage = Stage(lambda _: Hangs(), hosts=2)
    async with stage.bus as bus:
        waiting = asyncio.create_task(bus.ask(ask("a-1")))
        await stage.until_delivered(1)
        assert {(health.host, health.running) for health in await bus.health()} == {("host-0", 1), ("host-1", 0)}
        stage.revivals_may_end.clear()
        stage.host("host-1").die()
        assert [health.host for health in await bus.health()] == ["host-0"]
        waiting.cancel()


# --- a full mailbox ---------------------------------------------------------------------------------------------


async def test_a_refused_ask_is_sent_again_and_counts_once() -> None:
    """Until the host takes it; refusals are no deliveries, and no reason for dead letters."""
    stage = Stage({"s": [Refuses(), Refuses(), Refuses(), Refuses(), {"label": "x"}]})
    async with stage.bus as bus:
        assert output(await bus.ask(ask("a-1"))) == {"label": "x"}
        assert len(stage.script.asks) == 5
        assert (bus.statistics().redelivered, bus.statistics().dead_letters) == (0, ())


async def test_a_small_mailbox_slows_down_and_loses_nothing() -> None:
    """With room for two at a time all are answered, and begun in the order in which they were asked."""
    stage = Stage(lambda a: Says({"id": a.id}, after_s=0.001), mailbox=2)
    async with stage.bus as bus:
        replies = await gather(bus, *(ask(f"a-{i:02}") for i in range(30)))
    assert [output(reply) for reply in replies] == [{"id": f"a-{i:02}"} for i in range(30)]
    assert [a.id for a in stage.script.asks] == [f"a-{i:02}" for i in range(30)]


async def test_cancelling_makes_room_in_a_full_mailbox() -> None:
    """A cancel does not queue up behind the asks that wait for the room it makes."""
    stage = Stage(lambda a: Hangs() if a.id == "slow" else echo(a), mailbox=1)
    async with stage.bus as bus:
        slow = asyncio.create_task(bus.ask(ask("slow")))
        await stage.until_delivered(1)
        others = [asyncio.create_task(bus.ask(ask(f"a-{i}"))) for i in range(100)]
        await asyncio.sleep(0.01)
        slow.cancel()
        assert [output(await other) for other in others] == [{"id": f"a-{i}"} for i in range(100)]


# --- cancelling -------------------------------------------------------------------------------------------------


async def test_cancelling_the_wait_cancels_the_work() -> None:
    """The host is told, and the attempt is forgotten."""
    stage = Stage(lambda _: Hangs())
    async with stage.bus as bus:
        waiting = asyncio.create_task(bus.ask(ask("a-1")))
        await stage.until_delivered(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: bool(stage.host().cancelled))
        assert stage.host().cancelled == ["a-1"]
        assert bus.statistics().unanswered == 0


async def test_an_ask_that_was_cancelled_before_it_was_sent_is_not_sent() -> None:
    """Nobody works on what nobody wants."""
    stage = Stage()
    async with stage.bus as bus:
        unwanted = asyncio.create_task(bus.ask(ask("a-1")))
        await asyncio.sleep(0)
        unwanted.cancel()
        await bus.ask(ask("a-2"))
    assert [a.id for a in stage.script.asks] == ["a-2"]


# --- death ------------------------------------------------------------------------------------------------------


async def test_a_new_host_gets_what_the_dead_one_had_not_answered() -> None:
    """Each unanswered ask is sent once more, each answered one never; nobody notices."""
    first_is_slow = Script(lambda a: Hangs() if int(a.id) % 2 and len(first_is_slow.asks) <= 20 else echo(a))
    stage = Stage(first_is_slow)
    async with stage.bus as bus:
        waiting = [asyncio.create_task(bus.ask(ask(str(i)))) for i in range(20)]
        await until(lambda: sum(w.done() for w in waiting) == 10)
        stage.host().die()
        replies = await asyncio.gather(*waiting)
        assert [output(reply) for reply in replies] == [{"id": str(i)} for i in range(20)]
        assert (bus.statistics().restarts, bus.statistics().redelivered) == (1, 10)
    again = [a.id for a in stage.script.asks[20:]]
    assert again == [str(i) for i in range(1, 20, 2)]


async def test_an_ask_that_kills_its_hosts_is_a_dead_letter() -> None:
    """After three deliveries, the last one alone, it is given up with its cause; what was near it is answered."""
    stage = Stage(lambda a: Dies("out of memory") if a.id == "poison" else echo(a))
    async with stage.bus as bus:
        poison, *others = await gather(bus, ask("poison"), *(ask(f"a-{i}") for i in range(5)))
        assert isinstance(poison, Failed)
        assert (poison.reason, poison.unknown) == ("host_died", True)
        assert "out of memory" in poison.detail
        assert [output(reply) for reply in others] == [{"id": f"a-{i}"} for i in range(5)]
        (letter,) = bus.statistics().dead_letters
        assert (letter.envelope.body, letter.envelope.delivery) == (ask("poison"), 3)
        assert "out of memory" in letter.cause
    assert [a.id for a in stage.script.asks].count("poison") == 3


async def test_a_host_that_dies_too_often_gives_its_work_to_another() -> None:
    """At its fourth death within a minute it is not replaced again; nothing is lost, and it gets no more work."""
    clock = VirtualClock()
    stage = Stage({"s": [Hangs(), Says({"label": "x"})]}, hosts=2, clock=clock)
    async with stage.bus as bus:
        for _ in range(3):
            await stage.die()
            clock.advance(19.9)
        waiting = asyncio.create_task(bus.ask(ask("long")))
        await stage.until_delivered(1)
        stage.host("host-0").die()
        reply = await waiting
        assert (reply.host, bus.statistics().restarts) == ("host-1", 3)
        replies = await gather(bus, *(ask(f"a-{i}") for i in range(10)))
        assert {reply.host for reply in replies} == {"host-1"}


async def test_a_host_that_dies_now_and_then_is_always_replaced() -> None:
    """Deaths of more than a minute ago are forgotten."""
    clock = VirtualClock()
    stage = Stage(clock=clock)
    async with stage.bus as bus:
        for _ in range(10):
            await stage.die()
            clock.advance(20.1)
        assert output(await bus.ask(ask("a-1"))) == {"id": "a-1"}


async def test_the_last_host_that_dies_too_often_ends_its_asks() -> None:
    """With nobody left the reply says why, and later asks are unavailable."""
    stage = Stage(lambda _: Hangs())
    async with stage.bus as bus:
        for _ in range(3):
            await stage.die()
        waiting = asyncio.create_task(bus.ask(ask("a-1")))
        await stage.until_delivered(1)
        stage.host().die("its last")
        reply = await waiting
        assert isinstance(reply, Failed)
        assert (reply.reason, reply.unknown) == ("host_died", True)
        assert "died 4 times within a minute" in reply.detail
        later = await bus.ask(ask("a-2"))
        assert isinstance(later, Failed)
        assert later.reason == "unavailable"


async def test_asks_that_come_while_a_host_is_replaced_wait_for_it() -> None:
    """They are delivered once, to the new host."""
    stage = Stage()
    stage.revivals_may_end.clear()
    async with stage.bus as bus:
        stage.host().die()
        await stage.reviving.wait()
        waiting = asyncio.create_task(bus.ask(ask("a-1")))
        await asyncio.sleep(0)
        stage.revivals_may_end.set()
        assert output(await waiting) == {"id": "a-1"}
        assert bus.statistics().redelivered == 0
    assert len(stage.script.asks) == 1


async def test_asks_that_come_while_a_host_cannot_be_replaced_go_elsewhere() -> None:
    """A revival that fails in the end strands nobody; what was never sent has cost nothing."""
    for hosts in (2, 1):
        stage = Stage(lambda a: Hangs() if a.id == "busy" else echo(a), hosts=hosts)
        stage.revivals_may_end.clear()
        stage.revival_fails = True
        async with stage.bus as bus:
            busy = [asyncio.create_task(bus.ask(ask("busy"))) for _ in range(hosts - 1)]
            await asyncio.sleep(0)
            stage.host(f"host-{hosts - 1}").die()
            await stage.reviving.wait()
            waiting = asyncio.create_task(bus.ask(ask("a-1")))
            await asyncio.sleep(0)
            stage.revivals_may_end.set()
            reply = await waiting
            if hosts == 2:
                assert reply.host == "host-0"
            else:
                assert isinstance(reply, Failed)
                assert (reply.reason, reply.unknown, reply.detail) == ("host_died", False, "no room for another")
            for task in busy:
                task.cancel()


async def test_cancelling_while_a_host_is_replaced_is_fine() -> None:
    """An ask that waits for the fresh host and is cancelled meanwhile is simply gone; the host serves on."""
    stage = Stage({"s": [Dies(), Hangs(), Says({"label": "x"})]})
    async with stage.bus as bus:
        waiting = asyncio.create_task(bus.ask(ask("a-1")))
        await stage.until_delivered(2)
        stage.revivals_may_end.clear()
        stage.reviving.clear()
        stage.host().die()
        await stage.reviving.wait()
        waiting.cancel()
        await asyncio.sleep(0)
        stage.revivals_may_end.set()
        assert output(await bus.ask(ask("a-2"))) == {"label": "x"}
        assert bus.statistics().dead_letters == ()


# --- links that misbehave ---------------------------------------------------------------------------------------


class Odd:
    """A link whose host does what no host should: it answers twice, sends what is no answer, chokes on an ask."""

    def __init__(self, host: HostId = "host-0") -> None:
        self.host = host
        self.taken: list[str] = []
        self.collecting_fails = False
        self.closed = 0
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()

    async def deliver(self, batch: Sequence[Envelope]) -> list[Overloaded]:
        asks = [envelope.body for envelope in batch if isinstance(envelope.body, Ask)]
        if any(a.id.startswith("choke") for a in asks):
            raise ValueError("cannot be encoded")
        for a in asks:
            self.taken.append(a.id)
            self.inbox.put_nowait(Answer(id=a.id, output={"first": True}, host=self.host))
            self.inbox.put_nowait(Answer(id=a.id, output={"first": False}, host=self.host))
            self.inbox.put_nowait(Answer(id="never asked", output={}))
            self.inbox.put_nowait(Cancel(id=a.id))
        return []

    async def collect(self) -> list[Envelope]:
        body = await self.inbox.get()
        if self.collecting_fails:
            raise RuntimeError("the actor raised")
        return [Envelope(to="dispatcher", sender=self.host, body=body)]

    async def health(self) -> Health:
        return Health(host=self.host, waiting=0, running=0, answered=0, rss_bytes=0)

    async def close(self) -> None:
        self.closed += 1


async def no_revival(_: HostId) -> Link:
    raise AssertionError("nobody has died")


async def test_an_answer_counts_once() -> None:
    """The first is taken; a second one, and one that nobody asked for, are dropped."""
    async with Bus([(Odd(), SERVES)], no_revival) as bus:
        replies = await gather(bus, *(ask(f"a-{i}") for i in range(10)))
        assert [output(reply) for reply in replies] == [{"first": True}] * 10
        await bus.ask(ask("later"))
        assert bus.statistics().answered == {"host-0": 11}


async def test_what_is_no_answer_is_a_dead_letter() -> None:
    """A host that sends orders is not obeyed, and it is written down."""
    async with Bus([(Odd(), SERVES)], no_revival) as bus:
        await bus.ask(ask("a-1"))
        await bus.ask(ask("a-2"))
        letter = bus.statistics().dead_letters[0]
        assert (letter.envelope.body, letter.cause) == (Cancel(id="a-1"), "the dispatcher takes answers only")


async def test_an_ask_that_cannot_be_sent_harms_no_other() -> None:
    """It fails with its cause and is a dead letter; all others of its batch are delivered once, the host stays."""
    odd = Odd()
    asks = [ask(f"choke-{i}" if i in (0, 17, 39) else f"a-{i}") for i in range(40)]
    async with Bus([(odd, SERVES)], no_revival) as bus:
        replies = await gather(bus, *asks)
        for a, reply in zip(asks, replies, strict=True):
            if a.id.startswith("choke"):
                assert isinstance(reply, Failed)
                assert (reply.reason, reply.detail) == ("error", "cannot be sent: cannot be encoded")
                assert not reply.unknown
            else:
                assert output(reply) == {"first": True}
        dead = [letter.envelope.body for letter in bus.statistics().dead_letters if "cannot be sent" in letter.cause]
        assert dead == [asks[0], asks[17], asks[39]]
    assert odd.taken == [a.id for a in asks if not a.id.startswith("choke")]


async def test_a_link_that_breaks_in_any_other_way_is_replaced() -> None:
    """A surprise while collecting is as good as a death: the host is closed, a new one gets the asks."""
    odd, fresh = Odd(), Odd()
    odd.collecting_fails = True

    async def revive(_: HostId) -> Link:
        return fresh

    async with Bus([(odd, SERVES)], revive) as bus:
        assert output(await bus.ask(ask("a-1"))) == {"first": True}
        assert (odd.closed, bus.statistics().restarts) == (1, 1)
    assert fresh.closed == 1


# --- hosts that answer where they are asked ---------------------------------------------------------------------


class AtDesk(ScriptedHost):
    """A host that answers its caller directly, when it has room for that."""

    has_room = True

    async def answer(self, ask: Ask) -> Answer | Failed | Overloaded:
        if not self.has_room:
            return Overloaded(id=ask.id, host=self.host)
        return Answer(id=ask.id, output={"at": "desk"})


async def test_a_host_in_this_process_is_asked_without_a_message() -> None:
    """Its answer is counted as any other, and nothing is put into its mailbox."""
    host = AtDesk(Script(echo), host="host-0")
    async with Bus([(LocalLink("host-0", host), SERVES)], no_revival) as bus:
        assert output(await bus.ask(ask("a-1"))) == {"at": "desk"}
        statistics = bus.statistics()
    assert (statistics.answered, statistics.unanswered, host.script.asks) == ({"host-0": 1}, 0, [])


async def test_an_ask_that_finds_no_room_waits_in_line() -> None:
    """It is sent to the mailbox, which says when there is room."""
    host = AtDesk(Script({"s": [Refuses(), Says({"from": "mailbox"})]}), host="host-0")
    host.has_room = False
    async with Bus([(LocalLink("host-0", host), SERVES)], no_revival) as bus:
        assert output(await bus.ask(ask("a-1"))) == {"from": "mailbox"}
        assert bus.statistics().answered == {"host-0": 1}
    assert [a.id for a in host.script.asks] == ["a-1", "a-1"]


# --- the end ----------------------------------------------------------------------------------------------------


async def test_closing_answers_everybody() -> None:
    """Whoever still waits learns that the swarm was closed, also when a host cannot be closed properly."""
    stage = Stage(lambda _: Hangs(), hosts=2, mailbox=1)
    stage.host("host-0").close = lambda: 1 / 0  # type: ignore[assignment, method-assign]
    async with stage.bus as bus:
        waiting = [asyncio.create_task(bus.ask(ask(f"a-{i}"))) for i in range(10)]
        await stage.until_delivered(2)
    replies = await asyncio.gather(*waiting)
    assert {(type(reply), reply.reason) for reply in replies if isinstance(reply, Failed)} == {(Failed, "cancelled")}
    late = await bus.ask(ask("late"))
    assert isinstance(late, Failed)
    assert (late.reason, late.detail) == ("cancelled", "the swarm was closed")
