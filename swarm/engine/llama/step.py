"""One step of the engine as data: what the memory must do first, and what is decoded. No llama.cpp in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from swarm.engine.llama.prefix import Prefix
from swarm.engine.llama.scoring import Wave
from swarm.engine.llama.work import Work


@dataclass(frozen=True, slots=True)
class Fork:
    """`target` sees everything that `source` holds. Free: cells are tagged, not copied."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Forget what `sequence` holds from `position` on; from 0, all of it."""

    sequence: int
    position: int = 0


MemoryOperation = Fork | Cut


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive tokens of the same sequences, the first at `position`. `output`: logits of the last are wanted.

    More than one sequence means that they share these tokens: one cell of KV memory, visible to each of them.
    """

    tokens: Sequence[int]
    position: int
    sequences: tuple[int, ...]
    output: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """`cells`: tokens in memory. `tokens`, `rows`: decoded and read out in one step. `running`: requests side by side.

    `sequences`: how many numbers there are for requests, prefixes and option lanes together.
    """

    cells: int
    tokens: int
    rows: int
    running: int
    sequences: int

    @property
    def wave_lanes(self) -> int:
        """Most lanes of one wave: what requests and prefixes leave over, shared by two waves at least."""
        return max(1, (self.sequences - 2 * self.running) // 2)

    @property
    def wave_nodes(self) -> int:
        """Most nodes of one wave, so that work that is writing never keeps it out of a step."""
        return max(1, min(self.tokens, self.rows) // 2)


@dataclass(eq=False, slots=True)
class Seat:
    """The place of a running request: its sequence and how many tokens that holds."""

    work: Work
    sequence: int
    prefix: Prefix | None
    position: int
    forked: bool = False  # the sequence has the prefix's tokens

    @property
    def cells(self) -> int:
        return len(self.work.prompt.own) + self.work.room


@dataclass(frozen=True, slots=True)
class Part:
    """What one owner decodes in a step. Its logits begin at `row`: the last token's if `last`, then the wave's."""

    owner: Seat | Prefix
    tokens: int
    row: int
    last: bool = False
    wave: Wave | None = None
    lanes: tuple[int, ...] = ()  # borrowed sequences, beyond the owner's own


@dataclass(slots=True)
class Step:
    """One decode: spans in the order of their outputs, and who they belong to."""

    tokens_left: int
    rows_left: int
    spans: list[Span] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    rows: int = 0

    @property
    def tokens(self) -> int:
        return sum(len(span.tokens) for span in self.spans)

    def add(self, part: Part, spans: Sequence[Span]) -> None:
        rows = sum(span.output for span in spans)
        tokens = sum(len(span.tokens) for span in spans)
        self.rows, self.rows_left, self.tokens_left = self.rows + rows, self.rows_left - rows, self.tokens_left - tokens
        self.spans += spans
        self.parts.append(part)
