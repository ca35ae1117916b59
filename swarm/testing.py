"""Public fakes: try a swarm file without any model, and put scripted hosts under the real dispatcher.

    from swarm.testing import Dies, Says, Script, launch_scripted

    script = Script({
        "intent/head": Says({"label": "fees"}, confidence=0.4),   # not sure enough: the next tier is asked
        "intent/small": [Dies(), {"label": "card_lost"}],         # its host dies once, then it answers
        "urgency": {"label": "high"},                             # whatever tier is asked
    })
    with launch_scripted("my_swarm.yaml", script) as swarm:
        result = swarm.run_sync({"text": "Where is my card?"})
    assert result.steps["intent"].tier == "small"
    assert script.asked("urgency")[0].input == {"text": "Where is my card?"}

Plain code (tools, patterns, templates) that the script does not name runs for real. `ScriptedModel` and
`ScriptedEmbedder` are the fakes one level below, under a real specialist.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Mapping
from pathlib import Path

from protocols.control import HostSpec, Ready
from swarm.bus.base import Link
from swarm.bus.local import LocalLink
from swarm.bus.script import Answers, Dies, Fails, Hangs, Refuses, Says, Script
from swarm.bus.scripted import ScriptedHost
from swarm.config import SwarmFile
from swarm.engine.remote import price_of
from swarm.engine.scripted import ScriptedEmbedder, ScriptedModel
from swarm.plan.plan import NO_CACHE, Plan, PlannedStep
from swarm.runtime.launch import planned
from swarm.runtime.loop import Loop
from swarm.runtime.session import Session
from swarm.runtime.swarm import Swarm
from swarm.runtime.workshop import Workshop

__all__ = [
    "Answers",
    "Dies",
    "Fails",
    "Hangs",
    "Refuses",
    "Says",
    "Script",
    "ScriptedEmbedder",
    "ScriptedHost",
    "ScriptedModel",
    "VirtualClock",
    "launch_scripted",
]


class VirtualClock:
    """A clock that stands still until it is told to go on. Call it for the time in seconds; safe from any thread."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._sleepers: list[tuple[float, asyncio.AbstractEventLoop, asyncio.Event]] = []

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Go on, and wake whoever has slept long enough."""
        with self._lock:
            self._now += seconds
            woken = [sleeper for sleeper in self._sleepers if sleeper[0] <= self._now]
            self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[0] > self._now]
        for _, loop, event in woken:
            loop.call_soon_threadsafe(event.set)

    @property
    def sleepers(self) -> int:
        """How many wait for the clock to go on."""
        return len(self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Return when the clock has gone on by `seconds`."""
        event = asyncio.Event()
        with self._lock:
            if seconds > 0:
                self._sleepers.append((self._now + seconds, asyncio.get_running_loop(), event))
            else:
                event.set()
        await event.wait()


def launch_scripted(
    file: SwarmFile | str | Path | Plan,
    answers: Script | Answers,
    *,
    unavailable: Mapping[str, str] | None = None,
    store: str | Path = ":memory:",
    clock: VirtualClock | None = None,
    cache: bool = False,
) -> Swarm:
    """A running swarm whose models are a script: no model is loaded, no key is needed, nothing is sent anywhere.

    Steps, budgets, escalation and receipt are the real ones; all hosts are one, in this process, and nothing is
    written for a person. Remote tiers answer too, but for those in `unavailable` (tier -> why). With a `clock`, delays
    of the script go by it. With `cache`, steps use earlier answers again as the file says; without, every item is
    asked about. Raises `SwarmFileError`, and `ValueError` for a script that names what the swarm never asks.
    """
    plan = file if isinstance(file, Plan) else planned(file)
    settings = plan.runtime.model_copy(update={"kind": "in-process", "store": str(store), "person_file": None})
    plan = dataclasses.replace(plan, runtime=settings, steps=plan.steps if cache else _uncached(plan))
    script = answers if isinstance(answers, Script) else Script(answers)
    script.check(plan)
    runtime = _ScriptedRuntime(plan, script, clock)
    remote = [model for model in plan.models.values() if model.kind == "remote"]
    missing = {model.tier: f"no price known for {model.name!r}" for model in remote if price_of(model) is None}
    missing |= unavailable or {}
    loop = Loop()
    try:
        session = loop.wait(Session.open(plan, runtime, together=True, local=runtime, unavailable=missing))
    except BaseException:
        loop.stop()
        raise
    return Swarm(plan, session, loop)


def _uncached(plan: Plan) -> tuple[PlannedStep, ...]:
    return tuple(dataclasses.replace(step, cache=NO_CACHE) for step in plan.steps)


class _ScriptedRuntime:
    """Starts hosts that follow the script, with a real workshop behind it for plain code."""

    def __init__(self, plan: Plan, script: Script, clock: VirtualClock | None) -> None:
        self._plan = plan
        self._script = script
        self._clock = clock

    async def start(self, spec: HostSpec) -> tuple[Link, Ready]:
        code: dict[str, tuple[str, ...]] = {
            name: ("code",) for name, tiers in spec.tiers.items() if "code" in tiers and self._is_real(name)
        }
        plain = HostSpec(host=spec.host, packs={name: spec.packs[name] for name in code}, tiers=code, models={})
        workshop = await Workshop.open(plain)
        host = ScriptedHost(
            self._script,
            host=spec.host,
            mailbox=spec.mailbox,
            packs=spec.packs,
            code=workshop.answer,
            sleep=self._clock.sleep if self._clock is not None else asyncio.sleep,
        )
        ready = Ready(host=spec.host, node="this process", pid=0, calibrations=workshop.calibrations)
        return LocalLink(spec.host, host), ready

    async def close(self) -> None:
        """Nothing was started besides the hosts."""

    def _is_real(self, specialist: str) -> bool:
        steps = (step.name for step in self._plan.steps if step.specialist == specialist)
        return not all(self._script.names(step, "code") for step in steps)
