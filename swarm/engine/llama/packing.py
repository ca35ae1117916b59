"""Filling one step: who decodes how much of what, within the step's tokens and rows.

Work that is writing comes first, so that a long prompt never holds up an answer that is half written; then prompts in
the order given. While others want room too, nobody gets more than half of a step at first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from swarm.engine.llama.prefix import Node
from swarm.engine.llama.scoring import Wave
from swarm.engine.llama.step import Fork, Limits, MemoryOperation, Part, Restore, Seat, Span, Step

MOST_DRAFTED = 8  # tokens guessed in one step: who comes meanwhile waits for its end


class Packing:
    """One step in the making. Lanes are taken from the end of `free`, but never the last `reserved` numbers."""

    def __init__(self, limits: Limits, free: list[int], reserved: int) -> None:
        self.operations: list[MemoryOperation] = []
        self._limits = limits
        self._free = free
        self._reserved = reserved
        self._step = Step(limits.tokens, limits.rows)

    def fill(self, seats: Sequence[Seat]) -> Step:
        """The step for these running requests, the most urgent first."""
        self._draft(seats)
        for owner, allowance in self._shares(seats):
            if isinstance(owner, Node):
                self._add_node(owner, allowance)
            else:
                self._add_seat(owner, allowance)
        return self._step

    def _draft(self, seats: Sequence[Seat]) -> None:
        """Guesses make a step longer: they are for steps of nothing but texts, where no short answer is waited for."""
        writing = [seat.work for seat in seats if seat.work.writing]
        left = MOST_DRAFTED if all(seat.work.is_text and seat.work.writing for seat in seats) else 0
        for work in writing:
            left -= work.prepare(len(seats) - 1, left)

    def _shares(self, seats: Sequence[Seat]) -> Iterator[tuple[Seat | Node, int]]:
        """How many tokens each owner may decode in the step, at most the step's in total."""
        needs = self._needs(seats)
        left = self._limits.tokens
        first: dict[Seat | Node, int] = {}
        for owner, need in needs.items():
            first[owner] = min(need, left, max(1, self._limits.tokens // 2))
            left -= first[owner]
        for owner, need in needs.items():
            extra = min(need - first[owner], left)
            left -= extra
            yield owner, first[owner] + extra

    def _needs(self, seats: Sequence[Seat]) -> dict[Seat | Node, int]:
        needs: dict[Seat | Node, int] = {}
        restoring: dict[Node, None] = {}
        for seat in seats:
            node = seat.lacking
            if node is None:
                needs[seat] = len(seat.work.pending) + (len(seat.work.wave.nodes) if seat.work.wave else 0)
            elif node.restorable:
                restoring[node] = None
            else:
                needs[node] = len(node.tokens) - node.decoded
        self.operations += map(Restore, restoring)
        return needs

    def _add_node(self, node: Node, allowance: int) -> None:
        tokens = node.tokens[node.decoded : node.decoded + allowance]
        if not tokens:
            return
        if node.parent and not node.forked:
            self.operations.append(Fork(node.parent.sequence, node.sequence, node.start))
        node.forked = True
        span = Span(tokens, node.start + node.decoded, (node.sequence,), outputs=0)
        self._step.add(Part(node, len(tokens), self._step.rows), [span])

    def _add_seat(self, seat: Seat, allowance: int) -> None:
        work, step = seat.work, self._step
        whole = len(work.pending) <= allowance and work.wanted <= step.rows_left
        heads = work.wanted if whole and work.pending else 0
        tokens = work.pending[:] if whole else work.pending[: min(allowance, len(work.pending) - work.wanted)]
        wave = work.wave if whole else None
        if wave and not self._fits(wave, allowance - len(tokens), step.rows_left - heads):
            wave = None
        if not tokens and not wave:
            return
        self._fork_base(seat)
        lanes = tuple(self._free.pop() for _ in range(wave.lanes - 1)) if wave else ()
        self.operations += [Fork(seat.sequence, lane) for lane in lanes]
        sequences = (seat.sequence, *lanes)
        spans = [Span(tokens, seat.position, sequences, heads)] if tokens else []
        end = seat.position + len(tokens) - 1
        for node in wave.nodes if wave else ():
            spans.append(
                Span((node.token,), end + node.depth, sequences[node.first : node.last], outputs=int(node.read))
            )
        step.add(Part(seat, len(tokens), step.rows, heads, wave, lanes), spans)

    def _fork_base(self, seat: Seat) -> None:
        if seat.base and not seat.forked:
            self.operations.append(Fork(seat.base.holder(seat.start).sequence, seat.sequence, seat.start))
        seat.forked = True

    def _fits(self, wave: Wave, tokens: int, rows: int) -> bool:
        return len(wave.nodes) <= tokens and wave.rows <= rows and wave.lanes - 1 <= len(self._free) - self._reserved
