"""The engine's thread: schedule, decode, postprocess, again and again while there is work."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from swarm.engine.base import EngineStatistics
from swarm.engine.llama.context import Context, NoRoom
from swarm.engine.llama.scheduler import Scheduler
from swarm.engine.llama.step import Part, Seat, Step
from swarm.engine.llama.work import Result, Work
from swarm.errors import EngineClosed, EngineError

log = structlog.get_logger(__name__)


class Reply:
    """Where a result goes: a future of the event loop that asked."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self._loop.create_future()

    def send(self, outcome: Result | Exception) -> None:
        """Thread-safe. Nobody may be listening any more: the task was cancelled, or its event loop has ended."""
        try:
            self._loop.call_soon_threadsafe(self._settle, outcome)
        except RuntimeError:
            log.debug("engine.reply.unheard")

    def _settle(self, outcome: Result | Exception) -> None:
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class EngineLoop:
    """Owns the context and the scheduler; both are touched by its thread only."""

    def __init__(self, context: Context, scheduler: Scheduler, name: str) -> None:
        self._context = context
        self._scheduler = scheduler
        self._name = name
        self._changed = threading.Condition()
        self._inbox: deque[Work] = deque()
        self._replies: dict[Work, Reply] = {}
        self._closed = False
        self._steps = self._tokens = self._finished = self._cancelled = 0
        self._thread = threading.Thread(target=self._run, name=f"engine {name}", daemon=True)
        self._thread.start()

    def submit(self, work: Work, reply: Reply) -> None:
        """Queue `work`. Raises `EngineClosed`."""
        with self._changed:
            if self._closed:
                raise self._closed_error()
            self._replies[work] = reply
            self._inbox.append(work)
            self._changed.notify()

    def cancel(self, work: Work) -> None:
        """Drop `work` before the next step."""
        work.cancelled = True

    def statistics(self) -> EngineStatistics:
        """Counters since the start; `waiting` and `running` as of now."""
        scheduler = self._scheduler
        return EngineStatistics(
            steps=self._steps,
            tokens_decoded=self._tokens,
            tokens_cached=scheduler.tokens_cached,
            finished=self._finished,
            cancelled=self._cancelled,
            waiting=len(self._inbox) + len(scheduler.waiting),
            running=len(scheduler.running),
            prefixes=len(scheduler.prefixes),
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
                try:
                    self._step()
                except Exception as error:
                    log.exception("engine.step.broken", engine=self._name)
                    self._reply_error(self._scheduler.reset(), error)
        finally:
            self._end()

    def _step(self) -> None:
        step = self._scheduler.schedule()
        rows = self._decode(step)
        if rows is not None:
            self._postprocess(step, rows)
        self._context.apply(self._scheduler.take_operations())

    def _gather(self) -> bool:
        """Take in new and cancelled work, waiting while there is nothing to do. False when the engine is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._inbox or not self._scheduler.idle)
            while self._inbox:
                self._scheduler.add(self._inbox.popleft())
        for work in self._scheduler.drop_cancelled():
            self._cancelled += 1
            del self._replies[work]
        return not self._closed

    def _decode(self, step: Step) -> NDArray[np.float32] | None:
        """The step's logits, or `None` when it failed or there was no room and somebody made some."""
        self._context.apply(self._scheduler.take_operations())
        if not step.parts:
            return None
        try:
            rows = self._context.decode(step.spans)
        except NoRoom:
            self._scheduler.abandon(step)
            log.debug("engine.memory.full", engine=self._name, cells=self._scheduler.cells)
            if not self._scheduler.make_room():
                self._fail(self._scheduler.seats_hit_by(step), EngineError("the KV memory is full; raise `context`"))
            return None
        except EngineError as error:
            self._scheduler.abandon(step)
            self._fail(self._scheduler.seats_hit_by(step), error)
            return None
        self._steps += 1
        self._tokens += step.tokens
        return rows

    def _postprocess(self, step: Step, rows: NDArray[np.float32]) -> None:
        self._scheduler.commit(step)
        for part in step.parts:
            if isinstance(part.owner, Seat):
                self._absorb(part.owner, part, rows)

    def _absorb(self, seat: Seat, part: Part, rows: NDArray[np.float32]) -> None:
        first = part.row + part.last
        last = rows[part.row] if part.last else None
        n_nodes = len(part.wave.nodes) if part.wave else 0
        try:
            result = seat.work.absorb(last, part.wave, rows[first : first + n_nodes])
        except Exception as error:
            self._fail([seat], error)
            return
        if result is not None:
            self._finished += 1
            self._scheduler.release(seat)
            self._replies.pop(seat.work).send(result)

    def _fail(self, seats: list[Seat], error: Exception) -> None:
        for seat in seats:
            self._scheduler.release(seat)
        self._reply_error([seat.work for seat in seats], error)

    def _reply_error(self, works: list[Work], error: Exception) -> None:
        if not isinstance(error, EngineError):
            error = EngineError(f"the engine of {self._name} failed at a step: {error!r}; report this as a bug")
        for work in works:
            self._replies.pop(work).send(error)

    def _end(self) -> None:
        with self._changed:
            self._closed = True
        for reply in self._replies.values():
            reply.send(self._closed_error())
        self._replies.clear()
        self._context.close()

    def _closed_error(self) -> EngineClosed:
        return EngineClosed(f"the engine of {self._name} was closed; open it again")
