"""Who is next: the task that the engine has served least, then who waited longest.

Requests come from programs of many calls. To treat calls alike favours the program with the most of them; to serve the
task first that has received least so far lets short tasks pass (Autellix, Luo et al., 2025, program-level least
attained service). A second of waiting makes up for `AGEING` tokens of service, so nobody waits for ever, and a request
that would otherwise miss its deadline goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import count

from swarm.engine.llama.work import Work

AGEING = 200.0  # tokens of service that a second of waiting is worth
HURRY = 2.0  # a request is urgent when less than this many times its own work is left to its deadline
MOST_OVERTAKEN = 64  # requests that may pass one that does not fit, before all wait for it
_TASKS = 4096  # whose service is remembered


class Queue:
    """Waiting work, and how much each task has been served. `now`: seconds of a steady clock, throughout."""

    def __init__(self) -> None:
        self._waiting: dict[Work, None] = {}
        self._came: dict[Work, float] = {}  # when, for all unfinished work
        self._due: dict[Work, float] = {}  # deadlines of all unfinished work that has one
        self._served: OrderedDict[str, float] = OrderedDict()  # tokens by task
        self._passed: dict[Work, int] = {}
        self._anonymous = count()
        self._names: dict[Work, str] = {}
        self.rate = 500.0  # tokens a second that the engine decodes; kept up to date by its loop

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Work]:
        return iter(self._waiting)

    def add(self, work: Work, now: float) -> None:
        """Let it wait; it came at `now`. A request without a task is a task of its own."""
        self._waiting[work] = None
        self._came[work] = now
        self._names[work] = work.origin.task or f"\0{next(self._anonymous)}"
        if work.origin.left_s is not None:
            self._due[work] = now + work.origin.left_s

    def put_back(self, work: Work) -> None:
        """It was running and lost its place: it waits again, with the age it has."""
        self._waiting[work] = None

    def take(self, work: Work) -> None:
        """It runs now."""
        del self._waiting[work]
        self._passed.pop(work, None)

    def knows(self, work: Work) -> bool:
        """It waits or runs here."""
        return work in self._came

    def forget(self, work: Work) -> None:
        """It is done or given up; what its task was served counts on."""
        self._waiting.pop(work, None)
        self._passed.pop(work, None)
        self._due.pop(work, None)
        del self._came[work], self._names[work]

    def serve(self, work: Work, tokens: int) -> None:
        """`tokens` were decoded for it."""
        name = self._names[work]
        self._served[name] = self._served.pop(name, 0.0) + tokens
        if len(self._served) > _TASKS:
            self._served.popitem(last=False)

    def rank(self, work: Work, now: float) -> tuple[float, float]:
        """The lower the sooner: urgent work by its deadline, all other by service and age."""
        due = self._due.get(work)
        if due is not None and due - now < HURRY * (len(work.pending) + work.room) / self.rate:
            return (0.0, due)
        served = self._served.get(self._names[work], 0.0)
        return (1.0, served - AGEING * (now - self._came[work]))

    def in_order(self, now: float) -> list[Work]:
        """Everybody who waits, the next first."""
        return sorted(self._waiting, key=lambda work: self.rank(work, now))

    def may_be_passed(self, work: Work) -> bool:
        """It does not fit now. May others go before it? Not for ever."""
        return self._passed.get(work, 0) < MOST_OVERTAKEN

    def overtake(self, passed: Iterable[Work]) -> None:
        """Somebody behind them was taken first."""
        for work in passed:
            self._passed[work] = self._passed.get(work, 0) + 1

    def overdue(self, now: float) -> list[Work]:
        """Unfinished work whose deadline has passed."""
        return [work for work, due in self._due.items() if due <= now]
