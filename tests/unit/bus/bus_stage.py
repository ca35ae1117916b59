"""A bus over scripted hosts, and what its tests ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from protocols.answers import Answer, Ask, Failed
from protocols.ids import HostId
from swarm.bus.base import Link
from swarm.bus.bus import Bus
from swarm.bus.letters import DeadLetter
from swarm.bus.local import LocalLink
from swarm.bus.scripted import ScriptedHost
from swarm.testing import Answers, Says, Script

SERVES = frozenset({("s", "small")})


def ask(id: str, tier: str = "small", *, left_ms: int | None = None) -> Ask:
    return Ask(id=id, task="t", step="s", specialist="s", tier=tier, input={"id": id}, max_tokens=0, left_ms=left_ms)


def echo(ask: Ask) -> Says:
    """An answer that tells which ask it is for."""
    return Says({"id": ask.input["id"]})


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (what is waited for tells nobody)
        await asyncio.sleep(0)


class Stage:
    """A bus over scripted hosts that all follow one script; a host that died is replaced by one like it."""

    def __init__(
        self,
        answers: Script | Answers = echo,
        *,
        hosts: int = 1,
        mailbox: int = 256,
        room: int | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.script = answers if isinstance(answers, Script) else Script(answers)
        self.hosts: dict[HostId, list[ScriptedHost]] = {}
        self.mailbox = mailbox
        self.revivals_may_end = asyncio.Event()
        self.revivals_may_end.set()
        self.reviving = asyncio.Event()
        self.revival_fails = False
        self.kept: list[DeadLetter] = []
        links = [(self.link(f"host-{i}"), SERVES) for i in range(hosts)]
        if clock is not None:
            self.bus = Bus(links, self.revive, room=room, keep=self.kept.append, clock=clock)
        else:
            self.bus = Bus(links, self.revive, room=room, keep=self.kept.append)

    def link(self, name: HostId) -> LocalLink:
        host = ScriptedHost(self.script, host=name, mailbox=self.mailbox)
        self.hosts.setdefault(name, []).append(host)
        return LocalLink(name, host)

    async def revive(self, name: HostId) -> Link:
        self.reviving.set()
        await self.revivals_may_end.wait()
        if self.revival_fails:
            raise RuntimeError("no room for another")
        return self.link(name)

    async def until_delivered(self, n: int) -> None:
        """Let the bus work until the script has seen `n` asks."""
        await until(lambda: len(self.script.asks) >= n)

    async def die(self, name: HostId = "host-0") -> None:
        """Let a host die, and wait for the one that replaces it."""
        restarts = self.bus.statistics().restarts
        self.host(name).die()
        await until(lambda: self.bus.statistics().restarts > restarts)

    def host(self, name: HostId = "host-0") -> ScriptedHost:
        return self.hosts[name][-1]


def output(reply: Answer | Failed) -> object:
    assert isinstance(reply, Answer), reply
    return reply.output


async def gather(bus: Bus, *asks: Ask) -> list[Answer | Failed]:
    return list(await asyncio.gather(*(bus.ask(a) for a in asks)))
