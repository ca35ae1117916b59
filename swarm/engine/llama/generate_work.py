"""Text to be written after a prompt, on its way through the engine."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from itertools import takewhile
from typing import Literal, Protocol

from swarm.engine.base import Generated, GenerateRequest
from swarm.engine.llama.drafting import Acceptance, Lookup
from swarm.engine.llama.grammar.fields import field_means
from swarm.engine.llama.grammar.matcher import Matcher
from swarm.engine.llama.logits import Row, Rows
from swarm.engine.llama.sampling import Sampler
from swarm.engine.llama.scoring import Wave
from swarm.engine.llama.work import Result, Work


class Vocabulary(Protocol):
    """What writing needs to know of a model."""

    def is_end(self, token: int) -> bool:
        """Does this token end a generation?"""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; none for control tokens."""
        ...


class GenerateWork(Work):
    """Text to be written after a prompt, token by token; what a grammar forces is taken in one go.

    A draft is decoded behind what was written. Row i of the logits follows the i-th of its tokens, so the choices are
    made one after the other as without it, until one is not the draft's.
    """

    is_text = True

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt: Sequence[int],
        request: GenerateRequest,
        matcher: Matcher | None,
        *,
        shared: int = 0,
        acceptance: Acceptance | None = None,
    ) -> None:
        """`acceptance` is what the engine knows of drafts; without it none are made."""
        super().__init__(prompt, request.max_tokens, shared=shared, origin=request.origin)
        self._vocabulary = vocabulary
        self._matcher = matcher
        self._sampler = Sampler(request.temperature, request.seed)
        self._max_tokens = request.max_tokens
        self._stops = tuple(stop.encode() for stop in request.stop)
        self._has_fields = request.schema is not None
        self._tokens: list[int] = []
        self._text = b""
        self._cut = self._ended = False
        self._logprobs: dict[int, float] = {}  # of the tokens at these places, which were chosen among several
        self._acceptance = acceptance if request.draft else None
        self._lookup: Lookup | None = None
        self._draft: list[int] = []  # the last of `pending`
        self._untried: int | None = None  # what would have been the draft's first token, had it paid
        self._alike = 0  # what the draft, or the untried token, was found by
        self._drafted = self._accepted = 0
        if matcher is not None:
            self._write(matcher.forced())
            self.pending += self._tokens

    @property
    def writing(self) -> bool:
        """Nothing of the prompt is left to be read: only what was written, and its draft."""
        return 0 < len(self.pending) - len(self._draft) <= len(self._tokens)

    def admitted(self, prefix: int, cached: int) -> None:
        """What was written before it lost its place is kept."""
        super().admitted(prefix, cached)
        self.pending += self._tokens
        self._draft, self._untried, self.wanted = [], None, 1

    def prepare(self, companions: int, drafts: int) -> int:
        """Put a draft behind the pending tokens, in place of the last one if that was not decoded."""
        del self.pending[len(self.pending) - len(self._draft) :]
        self._draft = self._guess(companions, drafts)
        self.pending += self._draft
        self.wanted = 1 + len(self._draft)
        return len(self._draft)

    def absorb(self, heads: Rows, wave: Wave | None, rows: Rows) -> Result | None:
        """Choose the next token, and one after each of the draft's that the text agrees with."""
        self.forgotten = 0
        if not len(heads):
            return None
        draft, self._draft, self.wanted = self._draft, [], 1
        kept = choices = 0
        while True:
            written = self._choose(heads[kept])
            choices += 1
            if self._untried is not None:
                self._compare(self._untried, written)
            agreed = _n_alike(written, draft[kept:])
            kept += agreed
            result = self.finished()
            if result is not None or agreed < len(written):
                break
        self.pending += written[agreed:]
        self.forgotten = len(draft) - kept
        self._learn(len(draft), kept, saved=choices - 1)
        return result

    def finished(self) -> Generated | None:
        """The result, if the text is complete as it stands or may not grow."""
        if (end := self._stop_at()) is not None:
            return self._result(self._text[:end], "stop")
        if self._ended or (self._matcher is not None and self._matcher.complete and not self._cut):
            return self._result(self._text, "stop")
        if len(self._tokens) < self._max_tokens:
            return None
        closed = self._matcher.closed(self._tokens) if self._matcher else None
        if closed is not None:
            self._replace(closed)
        return self._result(self._text, "length")

    def _choose(self, row: Row) -> list[int]:
        """Take the next token and what the grammar forces after it; returns them, none at the end of the text."""
        allowed = self._matcher.allowed() if self._matcher else None
        sampled = self._sampler.sample(row, len(self._tokens), allowed)
        if self._vocabulary.is_end(sampled.token):
            self._ended = True
            return []
        if allowed is None or allowed.is_choice:
            self._logprobs[len(self._tokens)] = sampled.logprob
        written = [sampled.token, *(self._matcher.advance(sampled.token) if self._matcher else ())]
        self._write(written)
        return written

    def _guess(self, companions: int, most: int) -> list[int]:
        """What may come next, if a draft pays: nothing that the grammar forbids, and never up to the last token."""
        if self._acceptance is None:
            return []
        if self._lookup is None:
            self._lookup = Lookup(self._vocabulary.piece, self.prompt)
        self._lookup.extend(self._tokens[len(self._lookup) - len(self.prompt) :])
        guess = self._lookup.guess(self._max_tokens - len(self._tokens) - 1)
        if guess is None:
            return []
        pays = most > 0 and self._acceptance.pays(self.origin.specialist, guess.alike, companions)
        tokens = guess.tokens[:most] if pays else guess.tokens[:1]
        draft = list(takewhile(lambda token: not self._vocabulary.is_end(token), tokens))
        if self._matcher and draft:
            draft = draft[: self._matcher.valid(draft)]
        self._alike = guess.alike
        if draft and not pays:
            self._untried = draft[0]
        return draft if pays else []

    def _compare(self, untried: int, written: Sequence[int]) -> None:
        """Learn from a guess that was not decoded."""
        assert self._acceptance is not None, "only it makes guesses"
        right = int(written[:1] == [untried])
        self._acceptance.record(self.origin.specialist, self._alike, right, 1 - right)
        self._untried = None

    def _learn(self, drafted: int, accepted: int, saved: int) -> None:
        if not drafted:
            return
        assert self._lookup is not None and self._acceptance is not None, "only these make drafts"
        self._drafted += drafted
        self._accepted += accepted
        self._lookup.checked(drafted, accepted)
        self._acceptance.record(self.origin.specialist, self._alike, saved, drafted - accepted)

    def _write(self, tokens: Sequence[int]) -> None:
        taken = tokens[: self._max_tokens - len(self._tokens)]
        self._cut = len(taken) < len(tokens)
        self._tokens += taken
        self._text += b"".join(map(self._vocabulary.piece, taken))

    def _replace(self, tokens: list[int]) -> None:
        """The text is `tokens` instead; those that are the same at its beginning stay chosen."""
        same = _n_alike(tokens, self._tokens)
        self._logprobs = {at: logprob for at, logprob in self._logprobs.items() if at < same}
        self._tokens, self._text = tokens, b"".join(map(self._vocabulary.piece, tokens))

    def _stop_at(self) -> int | None:
        found = [at for stop in self._stops if (at := self._text.find(stop)) >= 0]
        return min(found, default=None)

    def _result(self, text: bytes, finish: Literal["stop", "length"]) -> Generated:
        # A character may be spread over several tokens: one that was cut in the middle is left out.
        return Generated(
            codecs.getincrementaldecoder("utf-8")("replace").decode(text),
            finish,
            self.tokens_in,
            len(self._tokens),
            self.tokens_cached,
            tuple(self._logprobs.values()),
            self._fields(),
            self._drafted,
            self._accepted,
        )

    def _fields(self) -> dict[str, float]:
        if not self._has_fields:
            return {}
        pieces = map(self._vocabulary.piece, self._tokens)
        return field_means((piece, self._logprobs.get(at)) for at, piece in enumerate(pieces))


def _n_alike(some: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens at the beginning of both are the same."""
    return next((i for i, (a, b) in enumerate(zip(some, others, strict=False)) if a != b), min(len(some), len(others)))
