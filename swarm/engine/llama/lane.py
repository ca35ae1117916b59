"""A context and its scheduler: one step of work at a time. Touched by the engine's thread only.

An engine has one lane, and one more for each adapter in use, as an adapter applies to a whole context.
"""

from __future__ import annotations

import time

import structlog

from swarm.engine.llama.context import Context, NoRoom
from swarm.engine.llama.logits import Rows
from swarm.engine.llama.prefix import Node
from swarm.engine.llama.saved import SavedPrefixes
from swarm.engine.llama.scheduler import Scheduler
from swarm.engine.llama.step import Cut, Fork, Limits, Part, Restore, Seat, Step
from swarm.engine.llama.work import Result, Work
from swarm.errors import EngineError

log = structlog.get_logger(__name__)

Settled = tuple[Work, Result | Exception]

_LEAST_ON_DISK = 64  # tokens of a prefix that is worth a file
_USES_ON_DISK = 1.5  # lately: two, the first of them not older than five minutes when the second came
_RATE_MEMORY = 0.9  # share of the known rate that a step leaves as it was


class Lane:
    """`step()` again and again until `idle`; each returns what has come to an end."""

    def __init__(self, context: Context, limits: Limits, name: str, saved: SavedPrefixes | None) -> None:
        self.scheduler = Scheduler(limits, saved)
        self.steps = self.tokens = self.tokens_restored = 0
        self._context = context
        self._saved = saved
        self._name = name
        self._settled: list[Settled] = []

    @property
    def idle(self) -> bool:
        """There is no work here, neither waiting nor running."""
        return self.scheduler.idle

    def step(self) -> list[Settled]:
        """Schedule, decode, postprocess. Whatever goes wrong ends the work that it concerns, never the lane."""
        self._settled = []
        try:
            step = self.scheduler.schedule(time.monotonic())
            rows = self._decode(step)
            if rows is not None:
                self._postprocess(step, rows)
            self._apply()
        except Exception as error:
            log.exception("engine.step.broken", engine=self._name)
            self._settled += [(work, self._as_engine_error(error)) for work in self.scheduler.reset()]
        return self._settled

    def save_prefix(self) -> bool:
        """Write one prefix that has proved useful and is not on disk yet; false when there is none."""
        if self._saved is None:
            return False
        now = time.monotonic()
        useful = (
            node
            for node in self.scheduler.tree
            if node.ready and not node.saved and len(node.tokens) >= _LEAST_ON_DISK and node.uses(now) >= _USES_ON_DISK
        )
        if (node := next(useful, None)) is None:
            return False
        node.saved = True
        try:
            self._saved.write(node.path, self._context.save(node.sequence))
        except MemoryError as error:
            log.warning("prefix.not_saved", engine=self._name, cause=repr(error))
        return True

    def held(self) -> dict[int, int]:
        """Sequence → tokens that it holds in llama.cpp's memory."""
        return self._context.held()

    def close(self) -> None:
        """Free the context, after what is worth keeping has been written."""
        while self.save_prefix():
            pass
        if self._saved is not None:
            self._saved.close()
        self._context.close()

    def _decode(self, step: Step) -> Rows | None:
        """The step's logits, or `None` when it failed or there was no room and somebody made some."""
        self._apply()
        if not step.parts:
            return None
        started = time.monotonic()
        try:
            rows = self._context.decode(step.spans)
        except NoRoom:
            self.scheduler.abandon(step)
            log.debug("engine.memory.full", engine=self._name, cells=self.scheduler.cells)
            if not self.scheduler.make_room(started):
                self._fail(self.scheduler.seats_hit_by(step), EngineError("the KV memory is full; raise `context`"))
            return None
        except EngineError as error:
            self.scheduler.abandon(step)
            self._fail(self.scheduler.seats_hit_by(step), error)
            return None
        self._count(step, time.monotonic() - started)
        return rows

    def _count(self, step: Step, seconds: float) -> None:
        self.steps += 1
        self.tokens += step.tokens
        queue = self.scheduler.queue
        queue.rate = _RATE_MEMORY * queue.rate + (1 - _RATE_MEMORY) * step.tokens / max(seconds, 1e-6)

    def _postprocess(self, step: Step, rows: Rows) -> None:
        self.scheduler.commit(step)
        for part in step.parts:
            if isinstance(part.owner, Seat):
                self._absorb(part.owner, part, rows)

    def _absorb(self, seat: Seat, part: Part, rows: Rows) -> None:
        first = part.row + part.heads
        n_read = part.wave.rows if part.wave else 0
        try:
            result = seat.work.absorb(rows[part.row : first], part.wave, rows[first : first + n_read])
        except Exception as error:
            self._fail([seat], error)
            return
        if result is None:
            self.scheduler.forget_tail(seat)
            return
        self.scheduler.release(seat)
        self._settled.append((seat.work, result))

    def _apply(self) -> None:
        """Change the KV memory as the scheduler wants it, in its order."""
        for operation in self.scheduler.take_operations():
            match operation:
                case Restore(node):
                    self._restore(node)
                case Fork() | Cut():
                    self._context.apply([operation])

    def _restore(self, node: Node) -> None:
        """From disk comes the whole path; what the parent holds already is shared with it again."""
        assert self._saved is not None
        node.restorable = False
        state = self._saved.read(node.path)
        if state is None or not self._context.restore(node.sequence, state):
            self._context.apply([Cut(node.sequence)])
            return
        if node.parent:
            self._context.apply(
                [Cut(node.sequence, 0, node.start), Fork(node.parent.sequence, node.sequence, node.start)]
            )
        node.decoded, node.forked, node.saved = len(node.tokens), True, True
        self.tokens_restored += len(node.tokens)

    def _fail(self, seats: list[Seat], error: Exception) -> None:
        for seat in seats:
            self.scheduler.drop([seat.work])  # what its sequence holds is not to be kept
            self._settled.append((seat.work, self._as_engine_error(error)))

    def _as_engine_error(self, error: Exception) -> EngineError:
        if isinstance(error, EngineError):
            return error
        return EngineError(f"the engine of {self._name} failed at a step: {error!r}; report this as a bug")
