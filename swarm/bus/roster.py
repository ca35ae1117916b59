"""The hosts to choose from: who serves what, who is up, who is spared because another is faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import structlog

from protocols.answers import Ask
from protocols.ids import HostId
from swarm.bus.line import Line
from swarm.bus.pace import Kind, is_slow

log = structlog.get_logger(__name__)

SPARED_S = 30.0  # how long a slow host gets no new work, before it is looked at afresh


class Roster:
    """All lines of a bus, by host."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._lines: dict[HostId, Line] = {}
        self._by_kind: dict[Kind, list[Line]] = {}
        self._clock = clock

    def add(self, line: Line) -> None:
        self._lines[line.link.host] = line
        for kind in line.serves:
            self._by_kind.setdefault(kind, []).append(line)

    def __iter__(self) -> Iterator[Line]:
        return iter(self._lines.values())

    def __getitem__(self, host: HostId) -> Line:
        return self._lines[host]

    def choose(self, ask: Ask) -> Line | None:
        """The least busy host that serves `ask`: of those that are up and fast, else up, else starting."""
        able = self._by_kind.get((ask.specialist, ask.tier), [])
        if len(able) == 1 and able[0].state == "up":  # as on a laptop
            return able[0]
        able = self._serving(ask)
        if len(able) > 1:
            able = [line for line in able if line.state == "up"] or [line for line in able if line.is_up] or able
        return able[0] if len(able) == 1 else min(able, key=lambda line: line.unanswered, default=None)

    def others(self, ask: Ask, than: Line) -> list[Line]:
        """The hosts that are up and serve `ask` too."""
        return [line for line in self._serving(ask) if line is not than and line.is_up]

    def look(self) -> list[Line]:
        """Find the hosts that are much slower than another. To be called once a second; gives those newly found."""
        for line in self:
            if line.state == "slow" and self._clock() >= line.slow_until:
                line.state = "up"
                line.paces.clear()
        found = [line for line in self if line.state == "up" and self._is_slow(line)]
        for line in found:
            line.state, line.slow_until = "slow", self._clock() + SPARED_S
            log.warning("host.slow", host=line.link.host, unanswered=line.unanswered, spared_s=SPARED_S)
        for line in self:
            for pace in line.paces.values():
                pace.fade()
        return found

    def _is_slow(self, line: Line) -> bool:
        return is_slow(line.paces, (other.paces for other in self if other is not line and other.state == "up"))

    def _serving(self, ask: Ask) -> list[Line]:
        return [line for line in self._by_kind.get((ask.specialist, ask.tier), ()) if line.state != "given_up"]
