"""Requests on their way through the engine, each a small state machine: what to decode next, what the logits mean.

A work item knows nothing of batches, sequences or threads. As much of its `pending` tokens and its `wave` as fits is
decoded in a step; the logits come back through `absorb`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from swarm.engine.base import Generated, Origin, Scored
from swarm.engine.llama.logits import Rows
from swarm.engine.llama.scoring import Wave

Result = Scored | Generated


class Work(ABC):
    """One request.

    `prompt`: its tokens, at least one, of which the first `shared` are said to be those of other prompts too.
    `room`: tokens that it may need in memory beyond the prompt. `wanted`: of how many of the last `pending` tokens the
    logits are wanted; these are decoded in one step. `is_text`: it writes token by token.
    """

    is_text = False

    def __init__(self, prompt: Sequence[int], room: int, *, shared: int = 0, origin: Origin | None = None) -> None:
        self.prompt = tuple(prompt)
        self.shared = min(shared, len(self.prompt) - 1)
        self.room = room
        self.origin = origin or Origin()
        self.pending: list[int] = list(self.prompt)  # to be decoded next, in the work's own sequence
        self.wanted = 1
        self.forgotten = 0  # of the tokens decoded last, how many at their end the memory has to forget
        self.tokens_in = 0
        self.tokens_cached = 0

    @property
    def wave(self) -> Wave | None:
        """Option nodes to be decoded behind the last pending token."""
        return None

    @property
    def writing(self) -> bool:
        """The prompt is read; each step matters for how soon the answer is there."""
        return False

    def admitted(self, prefix: int, cached: int) -> None:
        """It has a place in memory that begins with `prefix` tokens of its prompt, `cached` of them decoded before."""
        self.pending = list(self.prompt[prefix:])
        self.tokens_cached, self.tokens_in = cached, len(self.prompt) - cached

    def restart(self) -> None:  # noqa: B027  (most work has nothing to reset)
        """It lost its place in memory: everything has to be decoded again, after the next `admitted`."""

    def prepare(self, companions: int, drafts: int) -> int:
        """A step is put together in which `companions` others take part. May be called again before `absorb`.

        `drafts`: the most tokens that may be guessed for it. Returns how many are.
        """
        return 0

    @abstractmethod
    def absorb(self, heads: Rows, wave: Wave | None, rows: Rows) -> Result | None:
        """Take in what was decoded; returns the result when that was the last of it. Sets `forgotten`.

        `heads`: logits of the last `wanted` pending tokens, or no rows when not all of `pending` was decoded; `rows`:
        logits of the wave's nodes that are read; shapes (tokens, vocabulary). Both live until the next decode.
        """
