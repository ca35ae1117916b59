"""Who is in memory: a pure data structure over waiting and running work, KV cells and sequence numbers.

A request is admitted when its prompt and the room for its answer fit beside everything admitted before, so running
work never has to be thrown out to go on. `Queue` says who is next, `PrefixTree` what is there already, `packing` fills
the step. Time (seconds of a steady clock) is handed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from swarm.engine.llama.packing import Packing
from swarm.engine.llama.prefix import Node, PrefixTree
from swarm.engine.llama.queue import Queue
from swarm.engine.llama.seen import Seen, common
from swarm.engine.llama.step import Cut, Fork, Limits, MemoryOperation, Restore, Seat, Step
from swarm.engine.llama.work import Work

LEAST_SAVED = 16  # tokens that need not be decoded again, for a prefix to be worth a sequence
_LEAST_LONGER = 3  # tokens beyond what is there already, for another node
LEAST_KEPT = 64  # tokens of a prompt that is kept when its work is done
_MOST_KEPT = 4  # such prompts: more would only be in the way of attention


class Saved(Protocol):
    """What earlier runs left on disk."""

    def longest(self, prompt: Sequence[int]) -> int:
        """Tokens of the longest saved prefix that `prompt` begins with."""
        ...


class Scheduler:
    """Owns the queue, the running seats, the prefix tree and the sequence numbers."""

    def __init__(self, limits: Limits, saved: Saved | None = None) -> None:
        self.limits = limits
        self.queue = Queue()
        self.running: list[Seat] = []
        self.tree = PrefixTree()
        self.tokens_cached = 0
        self._seen = Seen()
        self._saved = saved
        self._free = list(range(limits.sequences))
        self._operations: list[MemoryOperation] = []
        self._kept: deque[Node] = deque()  # prompts of finished work that nobody has asked for again, perhaps
        self._full = False  # the memory refused a batch: admit nobody until someone leaves

    @property
    def idle(self) -> bool:
        return not len(self.queue) and not self.running

    @property
    def cells(self) -> int:
        """KV cells held or reserved."""
        return self.tree.cells + sum(seat.cells for seat in self.running)

    def add(self, work: Work, now: float) -> None:
        """Queue it. The caller has made sure that it fits when it is alone."""
        assert len(work.prompt) + work.room <= self.limits.cells
        self.queue.add(work, now)
        self._seen.add(work.prompt)

    def take_operations(self) -> list[MemoryOperation]:
        """What the memory has to do before the next decode, in order."""
        operations, self._operations = self._operations, []
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
        self._operations += packing.operations
        restoring = any(isinstance(operation, Restore) for operation in self._operations)
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
                        self._operations.append(Cut(seat.sequence, seat.position))
        self._return_lanes(step)

    def abandon(self, step: Step) -> None:
        """The step was not decoded and left no trace."""
        self._return_lanes(step)

    def forget_tail(self, seat: Seat) -> None:
        """The request does not stand by the last tokens that were decoded for it."""
        if seat.work.forgotten:
            seat.position -= seat.work.forgotten
            self._operations.append(Cut(seat.sequence, seat.position))

    def make_room(self, now: float) -> bool:
        """The memory refused a batch. Gives up the least valuable prefix, else the youngest request; false if alone."""
        self._full = True
        if node := self.tree.least_valuable(now):
            self._evict(node)
            return True
        if len(self.running) < 2:
            return False
        seat = self.running[-1]
        self._leave(seat)
        self._full = True
        seat.work.restart()
        self.queue.put_back(seat.work)
        return True

    def release(self, seat: Seat) -> None:
        """The request is done: its sequence is free again, and a long prompt is kept."""
        self._keep(seat)
        self._leave(seat)
        self.queue.forget(seat.work)

    def reset(self) -> list[Work]:
        """Start again from an empty memory; returns the work that was running."""
        lost = [seat.work for seat in self.running]
        for work in lost:
            self.queue.forget(work)
        self.running, self.tree, self._kept, self._full = [], PrefixTree(), deque(), False
        self._free = list(range(self.limits.sequences))
        self._operations = [Cut(sequence) for sequence in self._free]
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

    # --- admission

    def _admit(self, now: float) -> None:
        if self._full or not len(self.queue) or len(self.running) >= self.limits.running:
            return
        passed: list[Work] = []  # they do not fit
        for work in self.queue.in_order(now):
            if len(self.running) >= self.limits.running:
                return
            if seat := self._seat(work, now):
                self.queue.take(work)
                self.running.append(seat)
                self.queue.overtake(passed)
            elif self.queue.may_be_passed(work):
                passed.append(work)
            else:
                return

    def _seat(self, work: Work, now: float) -> Seat | None:
        """A place for `work`, at the cost of idle prefixes other than its own; `None` when there is none."""
        base, found = self.tree.match(work.prompt[:-1])
        if base:
            base.users += 1  # while room is made for the rest
        fits = self._make_cells(len(work.prompt) - found + work.room, now)
        if base:
            base.users -= 1
            if not fits and found < base.end and base.idle and len(self.tree) < self.limits.nodes:
                self._split(base, found)  # only its beginning is needed: the rest may go
                return self._seat(work, now)
        if not fits:
            return None
        base, cached = self._take_from_running(work, base, found, now)
        on_disk = self._saved.longest(work.prompt[:-1]) if self._saved is not None else 0
        if on_disk - cached >= LEAST_SAVED:
            base, cached = self._extend(base, cached, work.prompt[:on_disk], now, restorable=True)
        base, start = self._extend(base, cached, work.prompt[: self._shared_part(work, cached)], now)
        if base:
            base.users += 1
            for node in base.chain():
                node.use(now)
        self.tokens_cached += cached
        work.admitted(start, cached)
        return Seat(work, self._free.pop(), base, start, start)

    def _shared_part(self, work: Work, known: int) -> int:
        """Tokens at the beginning of the prompt that are, or are said to be, those of other prompts too.

        Others show it by having it: then it may be worth more, or less, than what the request says of itself.
        """
        seen, saved = self._seen.shared(work.prompt, known)
        said = work.shared if work.shared - known >= LEAST_SAVED else 0
        return min(len(work.prompt) - 1, max(said, seen if saved >= LEAST_SAVED else 0))

    def _take_from_running(self, work: Work, base: Node | None, at: int, now: float) -> tuple[Node | None, int]:
        """What a running request has read of the same beginning becomes a node: its base now, and that of `work`."""
        for seat in self.running:
            end = min(common(work.prompt, seat.work.prompt), seat.position, len(work.prompt) - 1)
            if seat.start == at and end - at >= LEAST_SAVED and self._make_number(base, now):
                return self._hand_over(seat, base, end), end
        return base, at

    def _hand_over(self, seat: Seat, base: Node | None, end: int) -> Node:
        """What `seat` has read behind `base`, up to `end`, becomes a node of the tree: its new base."""
        if base and seat.start < base.end:
            base = self._split(base, seat.start)
        node = self.tree.add(base, seat.work.prompt[seat.start : end], self._free.pop())
        self._operations.append(Fork(seat.sequence, node.sequence, end))
        node.decoded, node.forked, node.users = len(node.tokens), True, 1
        if seat.base:
            seat.base.users -= 1
        seat.base, seat.start = node, end
        return node

    def _keep(self, seat: Seat) -> None:
        """A long prompt may come again, or go on: the last few stay as nodes that are the first to be evicted."""
        end = min(seat.position, len(seat.work.prompt))
        if end - seat.start < LEAST_KEPT or len(self.tree) + 2 > self.limits.nodes:
            return
        base, at = self.tree.match(seat.work.prompt[:end])
        if at != seat.start:
            return
        self._kept.append(self._hand_over(seat, base, end))
        while len(self._kept) > _MOST_KEPT:
            node = self._kept.popleft()
            if node in self.tree and node.idle and not node.proved:
                self._evict(node)

    def _extend(
        self, base: Node | None, at: int, prefix: tuple[int, ...], now: float, *, restorable: bool = False
    ) -> tuple[Node | None, int]:
        """A node for the tokens of `prefix` beyond `at`, if they are worth one: the new base and how far it reaches."""
        if len(prefix) - at < _LEAST_LONGER or not self._make_number(base, now):
            return base, at
        if base and at < base.end:
            base = self._split(base, at)
        node = self.tree.add(base, prefix[at:], self._free.pop())
        node.restorable = restorable
        return node, node.end

    def _split(self, node: Node, at: int) -> Node:
        upper = self.tree.split(node, at, self._free.pop())
        self._operations.append(Fork(node.sequence, upper.sequence, at))
        return upper

    def _make_cells(self, need: int, now: float) -> bool:
        """Evict prefixes until `need` cells are free; none of them if that would not do."""
        if self.cells + need - self.tree.evictable > self.limits.cells:
            return False
        while self.cells + need > self.limits.cells:
            if (node := self.tree.least_valuable(now)) is None:
                return False
            self._evict(node)
        return True

    def _make_number(self, base: Node | None, now: float) -> bool:
        """Room for two more nodes, without giving up `base`."""
        if base:
            base.users += 1
        try:
            while len(self.tree) + 2 > self.limits.nodes:
                if (node := self.tree.least_valuable(now)) is None:
                    return False
                self._evict(node)
            return True
        finally:
            if base:
                base.users -= 1

    # --- leaving

    def _leave(self, seat: Seat) -> None:
        self.running.remove(seat)
        self._return(seat.sequence)
        self._full = False
        if seat.base:
            seat.base.users -= 1
            for node in list(seat.base.chain()):
                if node.users or node.children or node.ready:
                    break
                self._evict(node)  # half a prefix that nobody waits for

    def _return_lanes(self, step: Step) -> None:
        for part in step.parts:
            for lane in part.lanes:
                self._return(lane)

    def _evict(self, node: Node) -> None:
        self.tree.remove(node)
        self._return(node.sequence)

    def _return(self, sequence: int) -> None:
        self._operations.append(Cut(sequence))
        self._free.append(sequence)
