"""Requests on their way through the engine, each a small state machine: what to decode next, what the logits mean.

A work item knows nothing of batches, sequences or threads. As much of its `pending` tokens and its `wave` as fits is
decoded in a step; the logits come back through `absorb`.
"""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from swarm.engine.base import Generated, GenerateRequest, Scored
from swarm.engine.llama.sampling import Sampler
from swarm.engine.llama.scoring import ROOT, OptionTree, Wave, log_normalisers
from swarm.engine.llama.structured import Matcher

Result = Scored | Generated
Row = NDArray[np.float32]  # logits of one token, shape (vocabulary,)


class Vocabulary(Protocol):
    """What writing needs to know of a model."""

    def is_end(self, token: int) -> bool: ...

    def piece(self, token: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """A prompt after tokenising: `shared` may be found in the prefix cache, `own` (never empty) is this request's."""

    shared: tuple[int, ...]
    own: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.shared) + len(self.own)


class Work(ABC):
    """One request. `room`: tokens that its answer may need in memory beyond the prompt."""

    def __init__(self, prompt: PromptTokens, room: int) -> None:
        self.prompt = prompt
        self.room = room
        self.pending: list[int] = list(prompt.own)  # to be decoded next, in the work's own sequence
        self.tokens_in = 0
        self.tokens_cached = 0
        self.cancelled = False

    @property
    def wave(self) -> Wave | None:
        """Option nodes to be decoded behind the last pending token."""
        return None

    @property
    def writing(self) -> bool:
        """The prompt is read; each step matters for how soon the answer is there."""
        return False

    def admitted(self, *, cached: bool) -> None:
        """It has a place in memory; `cached` says whether its shared turns were already there, or on their way."""
        self.tokens_cached = len(self.prompt.shared) if cached else 0
        self.tokens_in = len(self.prompt) - self.tokens_cached

    def restart(self) -> None:
        """It lost its place in memory: everything has to be decoded again."""
        self.pending = list(self.prompt.own)

    @abstractmethod
    def absorb(self, last: Row | None, wave: Wave | None, rows: NDArray[np.float32]) -> Result | None:
        """Logits of the last pending token if it was decoded, and of the wave's nodes; returns the result when done.

        `last`: shape (vocabulary,); `rows`: shape (nodes of the wave, vocabulary). Both live until the next decode.
        """


class ScoreWork(Work):
    """Options to be scored after a prompt."""

    def __init__(self, prompt: PromptTokens, tree: OptionTree) -> None:
        super().__init__(prompt, tree.room)
        self._tree = tree
        self._edges = np.zeros(len(tree.tokens), np.float64)
        self._waves_done = 0

    @property
    def wave(self) -> Wave | None:
        return self._tree.waves[self._waves_done] if self._waves_done < len(self._tree.waves) else None

    def restart(self) -> None:
        super().restart()
        self._waves_done = 0

    def absorb(self, last: Row | None, wave: Wave | None, rows: NDArray[np.float32]) -> Result | None:
        if last is not None:
            self._read([ROOT], last[None, :])
        if wave is not None:
            self._read([node.id for node in wave.nodes], rows)
            self._waves_done += 1
            self.tokens_in += len(wave.nodes)
        if self.pending or self.wave:
            return None
        scores = self._tree.scores(self._edges)
        return Scored(scores, self._tree.lengths, self.tokens_in, self.tokens_cached)

    def _read(self, nodes: Sequence[int], rows: NDArray[np.float32]) -> None:
        """The log-probabilities of all edges that start at `nodes`, whose logits are `rows`."""
        row_of = np.full(int(max(self._tree.sources.max(), *nodes)) + 1, len(rows))
        row_of[list(nodes)] = np.arange(len(rows))
        row = row_of[self._tree.sources]
        edges = np.flatnonzero(row < len(rows))
        row = row[edges]
        self._edges[edges] = rows[row, self._tree.tokens[edges]] - log_normalisers(rows)[row]


class GenerateWork(Work):
    """Text to be written after a prompt, token by token; what a grammar forces is taken in one go."""

    def __init__(
        self, vocabulary: Vocabulary, prompt: PromptTokens, request: GenerateRequest, matcher: Matcher | None
    ) -> None:
        super().__init__(prompt, request.max_tokens)
        self._vocabulary = vocabulary
        self._matcher = matcher
        self._sampler = Sampler(request.temperature, request.seed)
        self._max_tokens = request.max_tokens
        self._stops = tuple(stop.encode() for stop in request.stop)
        self._tokens: list[int] = []
        self._text = b""
        self._cut = False
        self._logprobs: list[float] = []
        if matcher is not None:
            self._write(matcher.forced())

    @property
    def writing(self) -> bool:
        return 0 < len(self.pending) <= len(self._tokens)

    def restart(self) -> None:
        """What was written is kept."""
        super().restart()
        self.pending += self._tokens

    def absorb(self, last: Row | None, wave: Wave | None, rows: NDArray[np.float32]) -> Result | None:
        if last is None:
            return None
        allowed = self._matcher.allowed() if self._matcher else None
        sampled = self._sampler.sample(last, allowed)
        if self._vocabulary.is_end(sampled.token):
            return self._result(self._text, "stop")
        if allowed is None or len(allowed) > 1:
            self._logprobs.append(sampled.logprob)
        self._write([sampled.token, *(self._matcher.advance(sampled.token) if self._matcher else ())])
        return self.finished()

    def finished(self) -> Generated | None:
        """The result, if the text is complete as it stands or may not grow."""
        if (end := self._stop_at()) is not None:
            return self._result(self._text[:end], "stop")
        if self._matcher is not None and self._matcher.complete and not self._cut:
            return self._result(self._text, "stop")
        return self._result(self._text, "length") if len(self._tokens) >= self._max_tokens else None

    def _write(self, tokens: Sequence[int]) -> None:
        taken = tokens[: self._max_tokens - len(self._tokens)]
        self._cut = len(taken) < len(tokens)
        self._tokens += taken
        self._text += b"".join(map(self._vocabulary.piece, taken))
        self.pending += taken

    def _stop_at(self) -> int | None:
        found = [at for stop in self._stops if (at := self._text.find(stop)) >= 0]
        return min(found, default=None)

    def _result(self, text: bytes, finish: Literal["stop", "length"]) -> Generated:
        # A character may be spread over several tokens: one that was cut in the middle is left out.
        readable = codecs.getincrementaldecoder("utf-8")("replace").decode(text)
        return Generated(readable, finish, self.tokens_in, len(self._tokens), self.tokens_cached, tuple(self._logprobs))
