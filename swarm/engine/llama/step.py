"""One step of the engine as data: what the memory must do first, and what is decoded. No llama.cpp in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from swarm.engine.llama.prefix import Node
from swarm.engine.llama.scoring import Wave
from swarm.engine.llama.work import Work

SPARE_NODES = 8  # of the prefix tree, beyond one for each request that runs


@dataclass(frozen=True, slots=True)
class Fork:
    """`target` sees what `source` holds before position `end`; all of it if `None`. Cells are tagged, not copied."""

    source: int
    target: int
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """Forget what `sequence` holds from `start` on, up to `end` (excluded); with neither, all of it."""

    sequence: int
    start: int = 0
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Restore:
    """Read the node's whole path from disk into its sequence."""

    node: Node


MemoryOperation = Fork | Cut | Restore


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive tokens of the same sequences, the first at `position`. Logits of the last `outputs` are wanted.

    More than one sequence means that they share these tokens: one cell of KV memory, visible to each of them.
    """

    tokens: Sequence[int]
    position: int
    sequences: tuple[int, ...]
    outputs: int


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
    def nodes(self) -> int:
        """Most nodes of the prefix tree, of which each has a sequence."""
        return self.running + SPARE_NODES

    @property
    def wave_lanes(self) -> int:
        """Most lanes of one wave: what requests and prefixes leave over, shared by two waves at least."""
        return max(1, (self.sequences - self.running - self.nodes) // 2)

    @property
    def wave_nodes(self) -> int:
        """Most nodes of one wave, so that work that is writing never keeps it out of a step."""
        return max(1, min(self.tokens, self.rows) // 2)


@dataclass(eq=False, slots=True)
class Seat:
    """The place of a running request: its sequence, which begins with `start` tokens of the tree's node `base`."""

    work: Work
    sequence: int
    base: Node | None
    start: int
    position: int  # tokens that the sequence holds, once it is forked
    forked: bool = False  # the sequence has the base's tokens

    @property
    def cells(self) -> int:
        """KV cells held or reserved beyond the base, each for one token."""
        return len(self.work.prompt) - self.start + self.work.room

    @property
    def lacking(self) -> Node | None:
        """What has to be decoded of its prefix before the request itself."""
        return self.base.lacking(self.start) if self.base and not self.forked else None


@dataclass(frozen=True, slots=True)
class Part:
    """What one owner decodes in a step. Its logits begin at `row`: `heads` of its last tokens, then the wave's."""

    owner: Seat | Node
    tokens: int
    row: int
    heads: int = 0
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
        """How many tokens are decoded."""
        return sum(len(span.tokens) for span in self.spans)

    def add(self, part: Part, spans: Sequence[Span]) -> None:
        """Decode `spans`, which are those of `part`, behind what is in the step already."""
        rows = sum(span.outputs for span in spans)
        tokens = sum(len(span.tokens) for span in spans)
        self.rows, self.rows_left, self.tokens_left = self.rows + rows, self.rows_left - rows, self.tokens_left - tokens
        self.spans += spans
        self.parts.append(part)
