"""A write to the world outside is asked once, whatever dies meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from dispatch_plans import plan, step
from msgspec.structs import replace as changed

from protocols.answers import Answer, Ask, Failed, Reason
from protocols.packs import Effects as Kind
from protocols.packs import Pack
from swarm.dispatch.effects import Effects, settled
from swarm.dispatch.outbox import Outbox
from swarm.errors import StoreError
from swarm.plan.plan import PlannedStep
from swarm.state.records import MemoryRecords, Record

RUN = "r-1"
SCHEMA = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}


class World:
    """What a tool writes to: it remembers each call, and answers what it was told to, the last for ever."""

    def __init__(self, *replies: Answer | Failed | BaseException) -> None:
        self.asked: list[Ask] = []
        self._replies = list(replies) or [Answer(id="?", output={"id": 7})]

    async def __call__(self, ask: Ask) -> Answer | Failed:
        self.asked.append(ask)
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, BaseException):
            raise reply
        return changed(reply, id=ask.id)


class Records(MemoryRecords):
    """Those of a store that fails when it is told to."""

    broken = False

    def __init__(self) -> None:
        super().__init__(lambda: None)

    async def put(self, records: Any, *, new: bool = False) -> None:
        if self.broken:
            raise StoreError("disk full")
        await super().put(records, new=new)


def tool(effects: Kind = "write", idempotent: bool = False) -> PlannedStep:
    pack = Pack(name="pay", kind="tool", effects=effects, idempotent=idempotent, output_schema=SCHEMA)
    return replace(step("pay", "code", "person"), pack=pack)


def ask(id: str = "a-1", **more: Any) -> Ask:
    given = {"text": "3 dollars", **more}
    return Ask(id=id, task="t-1", step="pay", specialist="does_pay", tier="code", input=given, max_tokens=0)


def effects(records: MemoryRecords, plan_hash: str = "h") -> Effects:
    """As one life of a dispatcher has them."""
    return Effects(Outbox(records, RUN), plan_hash, RUN)


async def states(records: MemoryRecords) -> list[str]:
    return [effect.state for _, effect in (await Outbox(records, RUN).all()).values()]


async def test_read_is_asked_as_it_is() -> None:
    """A read leaves nothing behind, gets no key, and may be given to another host."""
    records, world = Records(), World()
    await effects(records).ask(tool("read"), ask(), world)
    assert world.asked == [ask()] and await states(records) == []


async def test_write_gets_a_key_and_is_intended_before_it_is_asked() -> None:
    """The outbox holds the write while its tool works, under the key that the tool is given."""
    records, seen = Records(), list[str]()

    async def send(given: Ask) -> Answer:
        seen.extend(await states(records))
        assert given.once and len(given.key) == 64
        assert given.key in await Outbox(records, RUN).all()
        return Answer(id=given.id, output={"id": 7})

    await effects(records).ask(tool(), ask(), send)
    assert seen == ["intended"] and await states(records) == ["done"]


async def test_done_write_is_answered_from_the_outbox() -> None:
    """Asked again after a crash, a write that was done gives the same answer, and its tool is not called."""
    records, world = Records(), World()
    first = await effects(records).ask(tool(), ask("a-1"), world)
    again = await effects(records).ask(tool(), ask("a-2"), world)
    assert len(world.asked) == 1
    assert isinstance(first, Answer) and again == changed(first, id="a-2")


async def test_write_without_an_outcome_is_not_repeated() -> None:
    """A write that was under way when its dispatcher died ends as unknown, for a person to settle."""
    records, world = Records(), World(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        await effects(records).ask(tool(), ask("a-1"), world)
    assert await states(records) == ["intended"]
    reply = await effects(records).ask(tool(), ask("a-2"), world)
    assert len(world.asked) == 1 and await states(records) == ["unknown"]
    assert isinstance(reply, Failed) and reply.reason == "unknown_effect" and not reply.retryable
    assert "outcome of this write is unknown" in reply.detail


async def test_idempotent_write_is_repeated_under_the_same_key() -> None:
    """A tool that does the same thing once for one key is asked again."""
    records, world = Records(), World(KeyboardInterrupt(), Answer(id="?", output={"id": 7}))
    with pytest.raises(KeyboardInterrupt):
        await effects(records).ask(tool(idempotent=True), ask("a-1"), world)
    assert isinstance(await effects(records).ask(tool(idempotent=True), ask("a-2"), world), Answer)
    one, two = world.asked
    assert one.key == two.key and not two.once and await states(records) == ["done"]


@pytest.mark.parametrize("reason", ["host_died", "timeout", "cancelled", "error"])
async def test_end_that_leaves_the_outcome_open_is_unknown(reason: Reason) -> None:
    """A host that died, or did not answer in time, may have written: that is said, and nothing is tried again."""
    records, world = Records(), World(Failed(id="?", reason=reason, detail="SIGKILL", retryable=True, unknown=True))
    reply = await effects(records).ask(tool(), ask(), world)
    assert isinstance(reply, Failed) and reply.reason == "unknown_effect" and not reply.retryable
    assert f"{reason}: SIGKILL" in reply.detail and await states(records) == ["unknown"]


async def test_idempotent_write_keeps_its_failure() -> None:
    """Where a repetition harms nothing, the policy sees the failure as it is, and may try again."""
    died = Failed(id="?", reason="host_died", retryable=True, unknown=True)
    records, world = Records(), World(died)
    assert await effects(records).ask(tool(idempotent=True), ask(), world) == changed(died, id="a-1")
    assert await states(records) == ["intended"]


@pytest.mark.parametrize("reason", ["overloaded", "unavailable", "declined"])
async def test_write_that_was_never_begun_may_be_tried_again(reason: Reason) -> None:
    """What no host has taken was not done: nothing stands in the way of the next attempt."""
    records, world = Records(), World(Failed(id="?", reason=reason, retryable=True), Answer(id="?", output={"id": 7}))
    reply = await effects(records).ask(tool(), ask("a-1"), world)
    assert isinstance(reply, Failed) and reply.retryable and await states(records) == []
    assert isinstance(await effects(records).ask(tool(), ask("a-2"), world), Answer)


async def test_delivered_and_then_unavailable_is_unknown() -> None:
    """The same reason with something unknown about it means that a host may have begun."""
    records, world = Records(), World(Failed(id="?", reason="unavailable", unknown=True))
    await effects(records).ask(tool(), ask(), world)
    assert await states(records) == ["unknown"]


@pytest.mark.parametrize("reason", ["tool_error", "invalid_output"])
async def test_tool_that_says_it_failed_is_not_called_again(reason: Reason) -> None:
    """A tool's own error is its outcome: found after a crash, it is given once more."""
    records, world = Records(), World(Failed(id="?", reason=reason, detail="no such account"))
    first = await effects(records).ask(tool(), ask("a-1"), world)
    again = await effects(records).ask(tool(), ask("a-2"), world)
    assert isinstance(first, Failed) and again == changed(first, id="a-2")
    assert len(world.asked) == 1 and await states(records) == ["failed"]


async def test_key_is_of_the_work_and_of_nothing_else() -> None:
    """The same step of the same task has one key in all its attempts; another task, input, step or plan has another."""
    one = effects(Records())
    key = one.key(tool(), ask("a-1"))
    assert one.key(tool(), ask("a-2", memory="told before")) == key, "notes and attempts do not matter"
    others = [
        one.key(tool(), changed(ask(), task="t-2")),
        one.key(tool(), ask(text="4 dollars")),
        one.key(replace(tool(), name="pay_twice"), ask()),
        effects(Records(), plan_hash="other").key(tool(), ask()),
        Effects(Outbox(Records(), "r-2"), "h", "r-2").key(tool(), ask()),
    ]
    assert len({key, *others}) == 6


async def test_nothing_is_written_while_the_outbox_cannot_be() -> None:
    """Without a store, the tool is not called."""
    records, world = Records(), World()
    records.broken = True
    with pytest.raises(StoreError):
        await effects(records).ask(tool(), ask(), world)
    assert world.asked == []


async def test_answer_counts_though_it_cannot_be_noted() -> None:
    """A store that fails after the write costs no answer; a crash then leaves it unknown, and repeats nothing."""
    records = Records()

    async def send(given: Ask) -> Answer:
        records.broken = True
        return Answer(id=given.id, output={"id": 7})

    assert isinstance(await effects(records).ask(tool(), ask("a-1"), send), Answer)
    records.broken = False
    again = await effects(records).ask(tool(), ask("a-2"), World())
    assert isinstance(again, Failed) and again.reason == "unknown_effect"


@pytest.mark.parametrize(("output", "kind"), [({"id": 9}, Answer), ({}, Failed)])
async def test_person_settles_an_unknown_write(output: dict[str, Any], kind: type) -> None:
    """What a person says was written answers the step, if it is what the pack puts out."""
    records, world = Records(), World(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        await effects(records).ask(tool(), ask(), world)
    outbox = Outbox(records, RUN)
    ((key, (_, known)),) = (await outbox.all()).items()
    await outbox.put(key, settled(known, output))
    assert isinstance(await effects(records).ask(tool(), ask(), world), kind) and len(world.asked) == 1


async def test_damaged_record_is_a_fault_of_the_store() -> None:
    """An outbox that cannot be read stops the write, and says which it is."""
    records, world = Records(), World()
    one = effects(records)
    await records.put([Record(kind="effect", scope=RUN, key=one.key(tool(), ask()), body=b"\xc1")])
    with pytest.raises(StoreError, match="cannot be read"):
        await one.ask(tool(), ask(), world)
    assert world.asked == []


def test_ladder_decides_where_an_unknown_write_goes() -> None:
    """The step goes to a person where its ladder ends in one, and fails otherwise."""
    from swarm.dispatch import moves, policy

    for tiers, status in ((("code", "person"), "person"), (("code",), "failed")):
        of = plan(replace(step("pay", *tiers), pack=tool().pack))
        state = policy.TaskState(of)
        policy.decide(moves.Begin(), state)
        failed = Failed(id="a", reason="unknown_effect", detail="the outcome of this write is unknown")
        policy.decide(moves.AttemptFailed("pay", "code", failed), state)
        end = state.steps["pay"].end
        assert end is not None and end.status == status and "the outcome of this write is unknown" in end.reason
