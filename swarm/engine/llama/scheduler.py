"""What is decoded next: a pure data structure over waiting and running work, KV cells and sequence numbers.

A request is admitted when its prompt and the room for its answer fit beside everything admitted before, so running
work never has to be thrown out to go on. First come, first served: nothing overtakes the head of the queue. In a step,
work that is writing comes first, then prompts in order; while others wait a prompt gets at most half of the step.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator

from swarm.engine.llama.prefix import Prefix, PrefixCache
from swarm.engine.llama.scoring import Wave
from swarm.engine.llama.step import Cut, Fork, Limits, MemoryOperation, Part, Seat, Span, Step
from swarm.engine.llama.work import Work


class Scheduler:
    """Owns the waiting queue, the running seats, the prefix cache and the sequence numbers."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting: deque[Work] = deque()
        self.running: list[Seat] = []
        self.prefixes = PrefixCache()
        self.tokens_cached = 0
        self._free = list(range(limits.sequences))
        self._operations: list[MemoryOperation] = []
        self._full = False  # the memory refused a batch: admit nobody until someone leaves

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    @property
    def cells(self) -> int:
        """KV cells held or reserved."""
        return self.prefixes.cells + sum(seat.cells for seat in self.running)

    def add(self, work: Work) -> None:
        """Queue it. The caller has made sure that it fits when it is alone."""
        assert len(work.prompt) + work.room <= self.limits.cells
        self.waiting.append(work)

    def take_operations(self) -> list[MemoryOperation]:
        """What the memory has to do before the next decode, in order."""
        operations, self._operations = self._operations, []
        return operations

    def drop_cancelled(self) -> list[Work]:
        """Forget cancelled work, waiting or running, and return it."""
        dropped = [work for work in self.waiting if work.cancelled]
        if dropped:
            self.waiting = deque(work for work in self.waiting if not work.cancelled)
        for seat in [seat for seat in self.running if seat.work.cancelled]:
            dropped.append(seat.work)
            self.release(seat)
        return dropped

    def schedule(self) -> Step:
        """Admit what fits and fill one step. The step is empty only when there is no work."""
        self._admit()
        step = Step(self.limits.tokens, self.limits.rows)
        for owner, allowance in self._shares():
            if isinstance(owner, Prefix):
                self._add_prefix(step, owner, allowance)
            else:
                self._add_seat(step, owner, allowance)
        assert step.parts or self.idle, "work is waiting and none of it can be decoded"
        return step

    def commit(self, step: Step) -> None:
        """The step was decoded."""
        for part in step.parts:
            if isinstance(part.owner, Prefix):
                part.owner.decoded += part.tokens
                continue
            part.owner.position += part.tokens
            del part.owner.work.pending[: part.tokens]
            if part.wave:
                self._operations.append(Cut(part.owner.sequence, part.owner.position))
        self._return_lanes(step)

    def abandon(self, step: Step) -> None:
        """The step was not decoded and left no trace."""
        self._return_lanes(step)

    def make_room(self) -> bool:
        """The memory refused a batch. Give up the idlest prefix or else the youngest request; false when alone."""
        self._full = True
        if prefix := self.prefixes.idle():
            self._evict(prefix)
            return True
        if len(self.running) < 2:
            return False
        seat = self.running[-1]
        self.release(seat)
        self._full = True
        seat.work.restart()
        self.waiting.appendleft(seat.work)
        return True

    def release(self, seat: Seat) -> None:
        """The request is done or given up: its sequence is free again."""
        self.running.remove(seat)
        self._return(seat.sequence)
        self._full = False
        if seat.prefix:
            seat.prefix.users -= 1
            if not seat.prefix.users and not seat.prefix.ready:
                self._evict(seat.prefix)

    def reset(self) -> list[Work]:
        """Start again from an empty memory; returns the work that was running."""
        lost = [seat.work for seat in self.running]
        self.running, self.prefixes, self._full = [], PrefixCache(), False
        self._free = list(range(self.limits.sequences))
        self._operations = [Cut(sequence) for sequence in self._free]
        return lost

    def seats_hit_by(self, step: Step) -> list[Seat]:
        """Running requests that a failed step touched, by themselves or through their prefix."""
        owners = {id(part.owner) for part in step.parts}
        return [seat for seat in self.running if id(seat) in owners or id(seat.prefix) in owners]

    def _admit(self) -> None:
        while self.waiting and not self._full and len(self.running) < self.limits.running:
            work = self.waiting[0]
            if not self._reserve(work):
                return
            self.waiting.popleft()
            self.running.append(self._seat(work))

    def _reserve(self, work: Work) -> bool:
        """Make the cells free that `work` needs, at the cost of idle prefixes other than its own."""
        shared = work.prompt.shared
        found = shared in self.prefixes
        need = len(work.prompt.own) + work.room + (0 if found else len(shared))
        while self.cells + need > self.limits.cells or (not found and len(self.prefixes) >= self.limits.running):
            idle = self.prefixes.idle(besides=shared)
            if idle is None:
                return False
            self._evict(idle)
        return True

    def _seat(self, work: Work) -> Seat:
        shared = work.prompt.shared
        prefix = self.prefixes.acquire(shared)
        work.admitted(cached=prefix is not None)
        self.tokens_cached += work.tokens_cached
        if shared and prefix is None:
            prefix = self.prefixes.add(shared, self._free.pop())
        return Seat(work, self._free.pop(), prefix, position=len(shared))

    def _shares(self) -> Iterator[tuple[Seat | Prefix, int]]:
        """How many tokens each owner may decode in the next step, at most the step's in total."""
        needs: Counter[Seat | Prefix] = Counter()
        for seat in sorted(self.running, key=lambda seat: not seat.work.writing):
            if seat.prefix and not seat.prefix.ready:
                needs[seat.prefix] = len(seat.prefix.tokens) - seat.prefix.decoded
            else:
                needs[seat] = len(seat.work.pending) + (len(seat.work.wave.nodes) if seat.work.wave else 0)
        left = self.limits.tokens
        first: dict[Seat | Prefix, int] = {}
        for owner, need in needs.items():
            first[owner] = min(need, left, max(1, self.limits.tokens // 2))
            left -= first[owner]
        for owner, need in needs.items():
            extra = min(need - first[owner], left)
            left -= extra
            yield owner, first[owner] + extra

    def _add_prefix(self, step: Step, prefix: Prefix, allowance: int) -> None:
        tokens = prefix.tokens[prefix.decoded : prefix.decoded + allowance]
        if tokens:
            span = Span(tokens, prefix.decoded, (prefix.sequence,), output=False)
            step.add(Part(prefix, len(tokens), step.rows), [span])

    def _add_seat(self, step: Step, seat: Seat, allowance: int) -> None:
        pending = seat.work.pending
        tokens = pending[: allowance if step.rows_left else min(allowance, len(pending) - 1)]
        last = len(tokens) == len(pending) > 0
        wave = seat.work.wave if len(tokens) == len(pending) else None
        if wave and not self._fits(step, wave, allowance - len(tokens), step.rows_left - last):
            wave = None
        if not tokens and not wave:
            return
        if seat.prefix and not seat.forked:
            self._operations.append(Fork(seat.prefix.sequence, seat.sequence))
            seat.forked = True
        lanes = tuple(self._free.pop() for _ in range(wave.lanes - 1)) if wave else ()
        self._operations += [Fork(seat.sequence, lane) for lane in lanes]
        sequences = (seat.sequence, *lanes)
        spans = [Span(tokens, seat.position, sequences, output=last)] if tokens else []
        end = seat.position + len(tokens) - 1
        for node in wave.nodes if wave else ():
            spans.append(Span((node.token,), end + node.depth, sequences[node.first : node.last], output=True))
        step.add(Part(seat, len(tokens), step.rows, last, wave, lanes), spans)

    def _fits(self, step: Step, wave: Wave, tokens: int, rows: int) -> bool:
        # Requests and prefixes come first: they may need a number each before the lanes come back.
        reserve = 2 * self.limits.running - len(self.running) - len(self.prefixes)
        return len(wave.nodes) <= min(tokens, rows) and wave.lanes - 1 <= len(self._free) - max(0, reserve)

    def _return_lanes(self, step: Step) -> None:
        for part in step.parts:
            for lane in part.lanes:
                self._return(lane)

    def _evict(self, prefix: Prefix) -> None:
        self.prefixes.remove(prefix)
        self._return(prefix.sequence)

    def _return(self, sequence: int) -> None:
        self._operations.append(Cut(sequence))
        self._free.append(sequence)
