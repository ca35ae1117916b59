"""The hosts of a run are all open, or none is left behind."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from protocols.answers import Answer, Ask
from protocols.control import Calibration, HostSpec, Ready
from swarm.bus.base import Link
from swarm.bus.local import LocalLink
from swarm.errors import LaunchError
from swarm.runtime.hosts import Hosts
from swarm.runtime.placement import LOCAL
from swarm.testing import ScriptedHost


class Recorder:
    """A runtime of scripted hosts that writes down what it opens and closes."""

    def __init__(self, fails: str | None = None) -> None:
        self.opened: list[str] = []
        self.closed: list[str] = []
        self._fails = fails

    async def start(self, spec: HostSpec) -> tuple[Link, Ready]:
        if spec.host == self._fails:
            raise LaunchError(f"no room for {spec.host}")
        await asyncio.sleep(0.01)
        self.opened.append(spec.host)
        host = ScriptedHost({"s": {"by": spec.host}}, host=spec.host)
        calibrations = {f"s/{spec.host}": Calibration(intercept=0.0, weights={})}
        return _Noting(spec.host, host, self.closed), Ready(host=spec.host, node="n", pid=1, calibrations=calibrations)

    async def close(self) -> None:
        """Nothing besides the hosts."""


class _Noting(LocalLink):
    def __init__(self, name: str, host: ScriptedHost, closed: list[str]) -> None:
        super().__init__(name, host)
        self._closed = closed

    async def close(self) -> None:
        await super().close()
        self._closed.append(self.host)


def spec(host: str, tier: str) -> HostSpec:
    return HostSpec(host=host, packs={}, tiers={"s": (tier,)}, models={})


def ask(tier: str) -> Ask:
    return Ask(id=f"a-{tier}", task="t", step="s", specialist="s", tier=tier, input={}, max_tokens=0)


async def test_remote_tiers_are_asked_here_and_the_others_there() -> None:
    """The local host is started by its own runtime; all serve one bus, and all say what they have learnt."""
    there, here = Recorder(), Recorder()
    hosts = Hosts([spec("host-0", "small"), spec("host-1", "small"), spec(LOCAL, "remote")], there, here)
    async with AsyncExitStack() as owned:
        bus = await hosts.start(owned)
        reply = await bus.ask(ask("remote"))
        assert isinstance(reply, Answer)
        assert reply.output == {"by": LOCAL}
    assert (there.opened, here.opened) == (["host-0", "host-1"], [LOCAL])
    assert set(there.closed + here.closed) == {"host-0", "host-1", LOCAL}
    assert set(hosts.ready) == {"host-0", "host-1", LOCAL}
    assert set(hosts.calibrations()) == {"s/host-0", "s/host-1", "s/local"}


@pytest.mark.parametrize("fails", ["host-0", "host-2"])
async def test_when_one_cannot_be_started_the_others_are_ended(fails: str) -> None:
    """Also those that are still starting when the first one fails."""
    runtime = Recorder(fails)
    hosts = Hosts([spec(f"host-{i}", "small") for i in range(5)], runtime, runtime)
    with pytest.raises(LaunchError, match=f"no room for {fails}"):
        async with AsyncExitStack() as owned:
            await hosts.start(owned)
    assert sorted(runtime.closed) == sorted(runtime.opened)
    assert len(asyncio.all_tasks()) == 1, "nothing goes on starting"


async def test_a_swarm_without_hosts_answers_that_nobody_can() -> None:
    """All tiers may be out of reach."""
    runtime = Recorder()
    async with AsyncExitStack() as owned:
        bus = await Hosts([], runtime, runtime).start(owned)
        assert "no host serves tier 'small'" in getattr(await bus.ask(ask("small")), "detail", "")
