"""The engine's thread: take in work, step, reply, again and again while there is work."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import structlog

from swarm.engine.base import EngineStatistics, Generated
from swarm.engine.llama.lane import Lane
from swarm.engine.llama.reply import Reply
from swarm.engine.llama.work import Result, Work
from swarm.errors import EngineClosed, EngineError, OutOfTime, SwarmError

log = structlog.get_logger(__name__)

_MOMENT_S = 0.001  # that an idle engine waits for more requests
_LONGEST_S = 0.02  # in all


class EngineLoop:
    """Owns the lanes, which its thread alone touches. A lane is opened when work first names its adapter."""

    def __init__(self, main: Lane, open_lane: Callable[[str], Lane], name: str) -> None:
        self._lanes: dict[str | None, Lane] = {None: main}
        self._turns: deque[Lane] = deque([main])
        self._open_lane = open_lane
        self._name = name
        self._changed = threading.Condition()
        self._inbox: deque[tuple[Work, str | None, float]] = deque()
        self._unwanted: list[Work] = []
        self._replies: dict[Work, Reply] = {}
        self._closed = False
        self._finished = self._cancelled = self._drafted = self._accepted = 0
        self._thread = threading.Thread(target=self._run, name=f"engine {name}", daemon=True)
        self._thread.start()

    def submit(self, work: Work, reply: Reply, adapter: str | None, came: float) -> None:
        """Queue `work`, whose age and time left count from `came` (monotonic time, s). Raises `EngineClosed`."""
        with self._changed:
            if self._closed:
                raise self._closed_error()
            self._replies[work] = reply
            self._inbox.append((work, adapter, came))
            self._changed.notify()

    def cancel(self, work: Work) -> None:
        """Drop `work` before the next step."""
        with self._changed:
            self._unwanted.append(work)

    def statistics(self) -> EngineStatistics:
        """Counters since the start; `waiting`, `running` and `cells` as of now."""
        lanes = list(self._lanes.values())
        return EngineStatistics(
            steps=sum(lane.steps for lane in lanes),
            tokens_decoded=sum(lane.tokens for lane in lanes),
            tokens_cached=sum(lane.scheduler.tokens_cached for lane in lanes),
            tokens_restored=sum(lane.tokens_restored for lane in lanes),
            tokens_drafted=self._drafted,
            tokens_accepted=self._accepted,
            finished=self._finished,
            cancelled=self._cancelled,
            waiting=len(self._inbox) + sum(len(lane.scheduler.queue) for lane in lanes),
            running=sum(len(lane.scheduler.running) for lane in lanes),
            prefixes=sum(len(lane.scheduler.tree) for lane in lanes),
            cells=sum(lane.scheduler.cells for lane in lanes),
        )

    def close(self) -> None:
        """End after the step that is being decoded. Everything unfinished gets `EngineClosed`. May be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            while self._gather():
                for work, outcome in self._next_lane().step():
                    self._count(outcome)
                    self._replies.pop(work).send(outcome)
        finally:
            self._end()

    def _gather(self) -> bool:
        """Take in new work, drop what is unwanted, wait while there is nothing to do. False when it is closed."""
        for lane in self._lanes.values():
            while not self._wanted() and lane.save_prefix():
                pass
        with self._changed:
            if not self._wanted():
                self._changed.wait_for(self._wanted)
                self._wait_for_company()
            new, self._inbox = self._inbox, deque()
            unwanted, self._unwanted = self._unwanted, []
        for work, adapter, came in new:
            self._take_in(work, adapter, came)
        self._drop([work for work in unwanted if work in self._replies], None)
        now = time.monotonic()
        for lane in self._lanes.values():
            overdue = lane.scheduler.queue.overdue(now)
            self._drop(overdue, OutOfTime("the time for this request is up; give it more, or the engine less to do"))
        return not self._closed

    def _wait_for_company(self) -> None:
        """Who sends one request often sends many: they begin together if they come within moments of each other."""
        known, end = 0, time.monotonic() + _LONGEST_S
        while not self._closed and len(self._inbox) > known and time.monotonic() < end:
            known = len(self._inbox)
            self._changed.wait(_MOMENT_S)

    def _count(self, outcome: Result | Exception) -> None:
        if isinstance(outcome, Exception):
            return
        self._finished += 1
        if isinstance(outcome, Generated):
            self._drafted += outcome.drafted
            self._accepted += outcome.accepted

    def _wanted(self) -> bool:
        return self._closed or bool(self._inbox) or any(not lane.idle for lane in self._lanes.values())

    def _take_in(self, work: Work, adapter: str | None, came: float) -> None:
        if adapter not in self._lanes:
            assert adapter is not None
            try:
                self._lanes[adapter] = self._open_lane(adapter)
            except Exception as error:  # the engine goes on without this adapter
                log.warning("engine.adapter.failed", engine=self._name, adapter=adapter, error=str(error))
                unexpected = EngineError(f"adapter {adapter} cannot be used ({error!r}); report this as a bug")
                self._replies.pop(work).send(error if isinstance(error, SwarmError) else unexpected)
                return
            self._turns.append(self._lanes[adapter])
        self._lanes[adapter].scheduler.add(work, came)

    def _drop(self, works: list[Work], cause: OutOfTime | None) -> None:
        if not works:
            return
        for lane in self._lanes.values():
            lane.scheduler.drop([work for work in works if lane.scheduler.queue.knows(work)])
        for work in works:
            self._cancelled += 1
            reply = self._replies.pop(work)
            if cause is not None:
                reply.send(cause)

    def _next_lane(self) -> Lane:
        """Lanes with work take turns."""
        for _ in range(len(self._turns)):
            self._turns.rotate(-1)
            if not self._turns[0].idle:
                break
        return self._turns[0]

    def _end(self) -> None:
        with self._changed:
            self._closed = True
        for reply in self._replies.values():
            reply.send(self._closed_error())
        self._replies.clear()
        for lane in self._lanes.values():
            try:
                lane.close()
            except Exception:
                log.exception("engine.lane.not_closed", engine=self._name)

    def _closed_error(self) -> EngineClosed:
        return EngineClosed(f"the engine of {self._name} was closed; open it again")
