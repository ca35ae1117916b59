"""Who takes part in the next step: a pure data structure over waiting and running work.

`Queue` says who is next, `KVMemory` who finds a place and what is there already, `packing` fills the step. Time
(seconds of a steady clock) is handed in.
"""

from __future__ import annotations

from collections.abc import Iterable

from swarm.engine.llama.memory import KVMemory, Saved
from swarm.engine.llama.packing import Packing
from swarm.engine.llama.prefix import Node, PrefixTree
from swarm.engine.llama.queue import Queue
from swarm.engine.llama.step import Limits, MemoryOperation, Restore, Seat, Step
from swarm.engine.llama.work import Work


class Scheduler:
    """Owns the queue, the memory's books and the sequence numbers. `now`: seconds of a steady clock, throughout."""

    def __init__(self, limits: Limits, saved: Saved | None = None) -> None:
        self.limits = limits
        self.queue = Queue()
        self.tokens_cached = 0  # of all admitted prompts, those that need not be decoded for them
        self._free = list(range(limits.sequences))  # numbers: lent to seats and prefixes, and to lanes for a step
        self._memory = KVMemory(limits, self._free, saved)
        self._full = False  # the memory refused a batch: admit nobody until someone leaves

    @property
    def idle(self) -> bool:
        """Nobody waits and nobody runs."""
        return not len(self.queue) and not self.running

    @property
    def running(self) -> list[Seat]:
        """Who has a place in memory, the longest there first."""
        return self._memory.seats

    @property
    def tree(self) -> PrefixTree:
        """The prefixes in memory."""
        return self._memory.tree

    @property
    def cells(self) -> int:
        """KV cells held or reserved, each for one token."""
        return self._memory.cells

    def add(self, work: Work, now: float) -> None:
        """Queue it; it came at `now`. The caller has made sure that it fits when it is alone."""
        assert len(work.prompt) + work.room <= self.limits.cells
        self.queue.add(work, now)
        self._memory.expect(work.prompt)

    def take_operations(self) -> list[MemoryOperation]:
        """What the memory has to do before the next decode, in order."""
        operations, self._memory.operations = self._memory.operations, []
        return operations

    def drop(self, unwanted: Iterable[Work]) -> None:
        """Forget work that is cancelled or overdue, waiting or running."""
        gone = set(unwanted)
        for seat in [seat for seat in self.running if seat.work in gone]:
            self._leave(seat)
        for work in gone:
            self.queue.forget(work)

    def schedule(self, now: float) -> Step:
        """Admit what fits and fill one step. Empty when there is no work, or a prefix has to be restored first."""
        self._admit(now)
        packing = Packing(self.limits, self._free, self._reserved)
        seats = sorted(self.running, key=lambda seat: (not seat.work.writing, self.queue.rank(seat.work, now)))
        step = packing.fill(seats)
        self._memory.operations += packing.operations
        restoring = any(isinstance(operation, Restore) for operation in self._memory.operations)
        assert step.parts or restoring or self.idle, "work is waiting and none of it can be decoded"
        return step

    def commit(self, step: Step) -> None:
        """The step was decoded."""
        for part in step.parts:
            match part.owner:
                case Node() as node:
                    node.decoded += part.tokens
                case Seat() as seat:
                    seat.position += part.tokens
                    del seat.work.pending[: part.tokens]
                    self.queue.serve(seat.work, part.tokens + (len(part.wave.nodes) if part.wave else 0))
                    if part.wave:
                        self._memory.trim(seat)
        self._return_lanes(step)

    def abandon(self, step: Step) -> None:
        """The step was not decoded and left no trace."""
        self._return_lanes(step)

    def forget_tail(self, seat: Seat) -> None:
        """The request does not stand by the last tokens that were decoded for it."""
        if seat.work.forgotten:
            seat.position -= seat.work.forgotten
            self._memory.trim(seat)

    def release(self, seat: Seat) -> None:
        """The request is done: its sequence is free again, and a long prompt is kept."""
        self._memory.keep(seat)
        self._leave(seat)
        self.queue.forget(seat.work)

    def make_room(self, now: float) -> bool:
        """The memory refused a batch. Gives up the least valuable prefix, else the youngest request; false if alone."""
        self._full = True
        if self._memory.evict_least(now):
            return True
        if len(self.running) < 2:
            return False
        seat = self.running[-1]
        self._leave(seat)
        self._full = True
        seat.work.restart()
        self.queue.put_back(seat.work)
        return True

    def reset(self) -> list[Work]:
        """Start again from an empty memory; returns the work that was running."""
        lost = [seat.work for seat in self.running]
        for work in lost:
            self.queue.forget(work)
        self._memory.clear()
        self._full = False
        return lost

    def seats_hit_by(self, step: Step) -> list[Seat]:
        """Running requests that a failed step touched, by themselves or through their prefix."""
        owners = {id(part.owner) for part in step.parts}
        return [
            seat
            for seat in self.running
            if id(seat) in owners or (seat.base and any(id(node) in owners for node in seat.base.chain()))
        ]

    @property
    def _reserved(self) -> int:
        """Sequence numbers kept for requests and prefixes: they may need one each before the lanes come back."""
        return max(0, self.limits.running + self.limits.nodes - len(self.running) - len(self.tree))

    def _admit(self, now: float) -> None:
        """Seats for those who are next; who does not fit is passed by others, though not for ever."""
        if self._full or not len(self.queue) or len(self.running) >= self.limits.running:
            return
        passed: list[Work] = []  # they do not fit
        for work in self.queue.in_order(now):
            if len(self.running) >= self.limits.running:
                return
            if self._memory.seat(work, now):
                self.queue.take(work)
                self.queue.overtake(passed)
                self.tokens_cached += work.tokens_cached
            elif self.queue.may_be_passed(work):
                passed.append(work)
            else:
                return

    def _leave(self, seat: Seat) -> None:
        self._memory.leave(seat)
        self._full = False

    def _return_lanes(self, step: Step) -> None:
        for part in step.parts:
            for lane in part.lanes:
                self._memory.give_back(lane)
