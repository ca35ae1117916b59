"""Who is in memory: prefixes, running requests, and the sequence numbers that name them in the KV memory.

A request gets a seat when its prompt and the room for its answer fit beside everything that has one already, so
running work never has to be thrown out to go on. What it shares with others, in memory or on disk, becomes a node of
the prefix tree. This is pure data: what llama.cpp's memory has to do is noted down as operations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from swarm.engine.llama.prefix import Node, PrefixTree
from swarm.engine.llama.seen import Seen, common
from swarm.engine.llama.step import Cut, Fork, Limits, MemoryOperation, Seat
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


class KVMemory:
    """Owns the prefix tree and the seats of running requests. `now`: seconds of a steady clock, throughout.

    `free`: sequence numbers that nobody has, a list shared with whoever else takes some.
    """

    def __init__(self, limits: Limits, free: list[int], saved: Saved | None = None) -> None:
        self.tree = PrefixTree()
        self.seats: list[Seat] = []  # in the order in which they were taken
        self.operations: list[MemoryOperation] = []  # not carried out yet
        self._limits = limits
        self._free = free
        self._saved = saved
        self._seen = Seen()
        self._kept: deque[Node] = deque()  # prompts of finished work that nobody has asked for again, perhaps

    @property
    def cells(self) -> int:
        """KV cells held or reserved, of which each is one token."""
        return self.tree.cells + sum(seat.cells for seat in self.seats)

    def expect(self, prompt: Sequence[int]) -> None:
        """A request with these tokens will want a seat: others may have begun alike."""
        self._seen.add(prompt)

    def seat(self, work: Work, now: float) -> Seat | None:
        """A place for `work`, at the cost of idle prefixes other than its own; `None` when there is none."""
        base, found = self.tree.match(work.prompt[:-1])
        with _in_use(base):
            fits = self._make_cells(len(work.prompt) - found + work.room, now)
        if base and not fits and found < base.end and base.idle and len(self.tree) < self._limits.nodes:
            self._split(base, found)  # only its beginning is needed: the rest may go
            return self.seat(work, now)
        if not fits:
            return None
        base, cached, start = self._prefix(work, base, found, now)
        if base:
            base.users += 1
            for node in base.chain():
                node.use(now)
        work.admitted(start, cached)
        seat = Seat(work, self._free.pop(), base, start, start)
        self.seats.append(seat)
        return seat

    def leave(self, seat: Seat) -> None:
        """The request gives up its place: its sequence is free again, and so is a prefix that only it waited for."""
        self.seats.remove(seat)
        self.give_back(seat.sequence)
        if seat.base:
            seat.base.users -= 1
            for node in list(seat.base.chain()):
                if node.users or node.children or node.ready:
                    break
                self._evict(node)  # half a prefix that nobody waits for

    def keep(self, seat: Seat) -> None:
        """A long prompt may come again, or go on: the last few stay as nodes that are the first to be evicted."""
        end = min(seat.position, len(seat.work.prompt))
        if end - seat.start < LEAST_KEPT or len(self.tree) + 2 > self._limits.nodes:
            return
        base, at = self.tree.match(seat.work.prompt[:end])
        if at != seat.start:
            return
        self._kept.append(self._hand_over(seat, base, end))
        while len(self._kept) > _MOST_KEPT:
            node = self._kept.popleft()
            if node in self.tree and node.idle and not node.proved:
                self._evict(node)

    def trim(self, seat: Seat) -> None:
        """Forget what the sequence of `seat` holds beyond its position."""
        self.operations.append(Cut(seat.sequence, seat.position))

    def evict_least(self, now: float) -> bool:
        """Give up the least valuable prefix; false when all are in use."""
        if (node := self.tree.least_valuable(now)) is None:
            return False
        self._evict(node)
        return True

    def give_back(self, sequence: int) -> None:
        """Empty the sequence; its number is free again."""
        self.operations.append(Cut(sequence))
        self._free.append(sequence)

    def clear(self) -> None:
        """Forget everything: nobody holds anything any more."""
        self.tree, self.seats, self._kept = PrefixTree(), [], deque()
        self._free[:] = range(self._limits.sequences)
        self.operations = [Cut(sequence) for sequence in self._free]

    # --- the prefix of a request

    def _prefix(self, work: Work, base: Node | None, found: int, now: float) -> tuple[Node | None, int, int]:
        """The node that `work` builds on, how many of its tokens are there without decoding, and how many it shares.

        `found` tokens, up to `base`, are in the tree already.
        """
        base, cached = self._take_from_running(work, base, found, now)
        on_disk = self._saved.longest(work.prompt[:-1]) if self._saved is not None else 0
        if on_disk - cached >= LEAST_SAVED:
            base, cached = self._extend(base, cached, work.prompt[:on_disk], now, restorable=True)
        base, start = self._extend(base, cached, work.prompt[: self._shared_part(work, cached)], now)
        return base, cached, start

    def _shared_part(self, work: Work, known: int) -> int:
        """Tokens at the beginning of the prompt that are, or are said to be, those of other prompts too.

        Others show it by having it: then it may be worth more, or less, than what the request says of itself.
        """
        seen, saved = self._seen.shared(work.prompt, known)
        said = work.shared if work.shared - known >= LEAST_SAVED else 0
        return min(len(work.prompt) - 1, max(said, seen if saved >= LEAST_SAVED else 0))

    def _take_from_running(self, work: Work, base: Node | None, at: int, now: float) -> tuple[Node | None, int]:
        """What a running request has read of the same beginning becomes a node: its base now, and that of `work`."""
        for seat in self.seats:
            end = min(common(work.prompt, seat.work.prompt), seat.position, len(work.prompt) - 1)
            if seat.start == at and end - at >= LEAST_SAVED and self._make_number(base, now):
                return self._hand_over(seat, base, end), end
        return base, at

    def _hand_over(self, seat: Seat, base: Node | None, end: int) -> Node:
        """What `seat` has read behind `base`, up to `end`, becomes a node of the tree: its new base."""
        if base and seat.start < base.end:
            base = self._split(base, seat.start)
        node = self.tree.add(base, seat.work.prompt[seat.start : end], self._free.pop())
        self.operations.append(Fork(seat.sequence, node.sequence, end))
        node.decoded, node.forked, node.users = len(node.tokens), True, 1
        if seat.base:
            seat.base.users -= 1
        seat.base, seat.start = node, end
        return node

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
        self.operations.append(Fork(node.sequence, upper.sequence, at))
        return upper

    # --- room

    def _make_cells(self, need: int, now: float) -> bool:
        """Evict prefixes until `need` cells are free; none of them if that would not do."""
        if self.cells + need - self.tree.evictable > self._limits.cells:
            return False
        while self.cells + need > self._limits.cells:
            if not self.evict_least(now):
                return False
        return True

    def _make_number(self, base: Node | None, now: float) -> bool:
        """Room for two more nodes, without giving up `base`."""
        with _in_use(base):
            while len(self.tree) + 2 > self._limits.nodes:
                if not self.evict_least(now):
                    return False
        return True

    def _evict(self, node: Node) -> None:
        self.tree.remove(node)
        self.give_back(node.sequence)


@contextmanager
def _in_use(node: Node | None) -> Iterator[None]:
    """While room is made for what builds on `node`, it stays."""
    if node:
        node.users += 1
    try:
        yield
    finally:
        if node:
            node.users -= 1
