"""The thread that keeps an engine's process alive and brings its answers home."""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import count
from typing import Any

import msgspec
import structlog

from protocols.engine import (
    CandidatesDone,
    Drop,
    FromEngine,
    GenerateDone,
    Logged,
    Opened,
    OpenEngine,
    Refused,
    ScoreDone,
    Statistics,
    frame,
)
from protocols.work import EngineSpec, EngineStatistics
from swarm.engine.llama.process.life import Life, Patience
from swarm.engine.llama.process.refusals import error_of
from swarm.engine.llama.reply import Reply
from swarm.errors import EngineClosed, EngineCrashed, EngineError

log = structlog.get_logger(__name__)

# What goes on being counted after a restart; other statistics are as of now.
_COUNTED = (
    "steps", "tokens_decoded", "tokens_cached", "tokens_restored", "tokens_drafted", "tokens_accepted", "finished",
    "cancelled",
)  # fmt: skip


class Keeper:
    """Starts the process, and starts it again when it dies. Its thread lives until `close`."""

    def __init__(self, spec: EngineSpec, patience: Patience) -> None:
        """Raises `FrameError` for a spec that cannot be sent."""
        self.ids = count()
        self._spec = spec
        self._first = frame(OpenEngine(spec))
        self._patience = patience
        self._changed = threading.Condition()  # guards everything below
        self._life: Life | None = None
        self._pending: dict[int, Reply] = {}
        self._held: dict[int, bytes] = {}  # frames for a process that is being started
        self._opened = False  # for the first time
        self._closed = False
        self._error: Exception | None = None  # why it could not be opened
        self._crashed: str | None = None  # why no process is being started, while that is so
        self._restarts: deque[float] = deque(maxlen=patience.restarts)  # when
        self._n_restarts = 0
        self._before = self._now = EngineStatistics()  # of all processes that have ended; of this one
        self._thread = threading.Thread(target=self._run, name=f"keeper of {spec.path}", daemon=True)
        self._thread.start()

    def wait_until_open(self) -> None:
        """Raises why the model could not be loaded."""
        with self._changed:
            self._changed.wait_for(lambda: self._opened or self._closed)
            if not self._opened:
                raise self._error or self._closed_error()

    def submit(self, id: int, data: bytes, reply: Reply) -> None:
        """Send the frame of work `id`; `reply` gets what comes of it. Raises `EngineClosed`, `EngineCrashed`."""
        with self._changed:
            if self._closed:
                raise self._closed_error()
            if self._crashed is not None:
                raise self._crash_error(self._crashed)
            self._pending[id] = reply
            if self._life is None:
                self._held[id] = data
                return
            if not self._life.busy:
                self._life.busy = True
                self._life.touch()
            self._life.send(data)

    def drop(self, id: int) -> None:
        """Nobody waits for work `id` any longer. Nothing happens when it is done already."""
        with self._changed:
            if self._pending.pop(id, None) is None:
                return
            if self._life is not None:
                self._life.busy = bool(self._pending)
            if self._held.pop(id, None) is None and self._life is not None:
                self._life.send(frame(Drop(id)))

    def statistics(self) -> EngineStatistics:
        """As the process last reported, at most a fraction of a second ago."""
        with self._changed:
            return msgspec.structs.replace(_sum(self._before, self._now), restarts=self._n_restarts)

    def close(self) -> None:
        """End the process; what waits ends with `EngineClosed`. May be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._life is not None:
                self._life.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # --- the thread

    def _run(self) -> None:
        try:
            while self._may_start():
                self._live()
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
                lost, self._pending = self._pending, {}
            for reply in lost.values():
                reply.send(self._closed_error())

    def _may_start(self) -> bool:
        """Wait until a process may be started; false when none is wanted."""
        with self._changed:
            if self._crashed is not None:
                left_s = self._restarts[0] + self._patience.window_s - time.monotonic()
                self._changed.wait_for(lambda: self._closed, timeout=max(0.0, left_s))
                self._crashed = None
            if self._closed:
                return False
            if self._opened:
                self._restarts.append(time.monotonic())
                self._n_restarts += 1
            return True

    def _live(self) -> None:
        """One process from its start to its end."""
        try:
            life = Life(self._spec, self._first, self._patience)
        except OSError as error:
            cause = f"no process can be started: {error}"
            self._bury(cause, EngineError(cause))
            return
        with self._changed:
            self._life = life
            life.busy = bool(self._held)
            for data in self._held.values():
                life.send(data)
            self._held.clear()
            if self._closed:
                life.close()
        try:
            for message in life.messages():
                self._take(message, life)
        finally:
            self._bury(*life.end())

    def _take(self, message: FromEngine, life: Life) -> None:
        match message:
            case ScoreDone(id=id, result=result) | GenerateDone(id=id, result=result):
                self._reply(id, result, life)
            case CandidatesDone(id=id, results=results):
                self._reply(id, results, life)
            case Refused(id=int(id)):
                self._reply(id, error_of(message), life)
            case Statistics(statistics):
                self._now = statistics
            case Logged(level, event, fields):
                getattr(log, level)(event, **fields)
            case Opened():
                with self._changed:
                    self._opened = True
                    self._changed.notify_all()
            case _:
                pass  # it could not be opened: the life ends, and says so

    def _reply(self, id: int, outcome: Any, life: Life) -> None:
        with self._changed:
            reply = self._pending.pop(id, None)
            life.busy = bool(self._pending)
        if reply is not None:
            reply.send(outcome)

    def _bury(self, cause: str, error: Exception) -> None:
        """The process has ended: its work fails, and whether another may be started is settled."""
        with self._changed:
            self._life = None
            self._before, self._now = _counted(_sum(self._before, self._now)), EngineStatistics()
            lost, self._pending = self._pending, {}
            self._held.clear()
            if not self._opened:
                self._error, self._closed = error, True
            full = len(self._restarts) == self._restarts.maxlen
            if full and time.monotonic() - self._restarts[0] < self._patience.window_s:
                self._crashed = cause
            closed = self._closed
        if not closed:
            log.error("engine.crashed", engine=self._spec.path, cause=cause, lost=len(lost))
        for reply in lost.values():
            reply.send(self._closed_error() if closed else self._crash_error(cause))

    def _closed_error(self) -> EngineClosed:
        return EngineClosed(f"the engine of {self._spec.path} was closed; open it again")

    def _crash_error(self, cause: str) -> EngineCrashed:
        if self._crashed is None:
            return EngineCrashed(f"the engine of {self._spec.path} crashed ({cause}) and is started again; ask again")
        return EngineCrashed(
            f"the engine of {self._spec.path} crashed {self._patience.restarts + 1} times in "
            f"{self._patience.window_s:.0f} s, the last time because {cause}; it is started again after a while"
        )


def _sum(one: EngineStatistics, other: EngineStatistics) -> EngineStatistics:
    """`other` with the counters of both."""
    return msgspec.structs.replace(other, **{name: getattr(one, name) + getattr(other, name) for name in _COUNTED})


def _counted(statistics: EngineStatistics) -> EngineStatistics:
    return EngineStatistics(**{name: getattr(statistics, name) for name in _COUNTED})
