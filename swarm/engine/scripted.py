"""Engines that say what they are told to, for tests: no model, no thread, no clock.

    model = ScriptedModel(score={" card lost": -0.1}, generate='{"amount": null}')
    chooser = Chooser(pack, "small", model, index, ScriptedEmbedder(), None)
    ...
    assert "Labels:" in model.requests[0].prompt.turns[0].text

`ScriptedModel` is a `LanguageModel`, `ScriptedEmbedder` an `Embedder`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from swarm.engine.base import EngineStatistics, Generated, GenerateRequest, Prompt, Scored, ScoreRequest
from swarm.errors import EngineClosed, PromptTooLong

UNLIKELY = -10.0  # log-probability (nats) of an option that the script does not name
MARKUP = 5  # tokens that each turn costs besides its text, as in chat formats

ScoreScript = Mapping[str, float] | Callable[[ScoreRequest], Mapping[str, float]]
GenerateScript = str | Callable[[GenerateRequest], str]


def four_bytes(text: str) -> int:
    """Tokens of `text` as if each covered four bytes: about what English needs."""
    return -(-len(text.encode()) // 4)


class ScriptedModel:
    """A `LanguageModel` whose answers are written down beforehand. `requests` holds everything it was asked.

    `score` gives log-probabilities by option, as a table or for each request; `generate` the text, which is cut at a
    stop string and at the request's `max_tokens`. A script may raise, as an engine does. `count` says how many tokens
    a text has; a prompt of more than `context` is refused.
    """

    def __init__(
        self,
        score: ScoreScript | None = None,
        generate: GenerateScript = "",
        *,
        count: Callable[[str], int] = four_bytes,
        context: int = 1_000_000,
    ) -> None:
        self.requests: list[ScoreRequest | GenerateRequest] = []
        self._score = score or {}
        self._generate = generate
        self._count = count
        self._context = context
        self._closed = False

    async def score(self, request: ScoreRequest) -> Scored:
        """The script's log-probabilities (nats). Raises `PromptTooLong`, `EngineClosed` and what the script raises."""
        n_prompt = self._take(request)
        script = self._score if isinstance(self._score, Mapping) else self._score(request)
        lengths = tuple(max(1, self._count(option)) for option in request.options)
        logprobs = tuple(script.get(option, UNLIKELY * n) for option, n in zip(request.options, lengths, strict=True))
        return Scored(logprobs, lengths, tokens_in=n_prompt + sum(lengths), tokens_cached=0)

    async def generate(self, request: GenerateRequest) -> Generated:
        """The script's text, cut. Raises `PromptTooLong`, `EngineClosed` and what the script raises."""
        n_prompt = self._take(request)
        text = self._generate if isinstance(self._generate, str) else self._generate(request)
        for stop in request.stop:
            text = text.split(stop, 1)[0]
        whole = text
        while self._count(text) > request.max_tokens:
            text = text[: len(text) * request.max_tokens // self._count(text)]
        n_out = self._count(text)
        return Generated(
            text, "stop" if text == whole else "length", n_prompt, n_out, tokens_cached=0, logprobs=(-0.1,) * n_out
        )

    async def candidates(self, request: GenerateRequest, n: int) -> tuple[Generated, ...]:
        """`n` times what `generate` gives, text i to the request with `seed + i`. Raises what `generate` raises."""
        seeds = (msgspec.structs.replace(request, seed=request.seed + i) for i in range(n))
        return tuple([await self.generate(one) for one in seeds])

    def count(self, text: str) -> int:
        """Tokens of `text`, as the `count` that was handed in has it."""
        return self._count(text)

    def statistics(self) -> EngineStatistics:
        """One step a request, all of them finished."""
        return EngineStatistics(steps=len(self.requests), finished=len(self.requests))

    def close(self) -> None:
        """Whatever is asked from now on ends with `EngineClosed`."""
        self._closed = True

    def tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt: its turns, the open turn of the answer, and what a chat format adds to each."""
        texts = [*(turn.text for turn in prompt.turns), prompt.answer_start]
        return sum(self._count(text) + MARKUP for text in texts)

    def _take(self, request: ScoreRequest | GenerateRequest) -> int:
        if self._closed:
            raise EngineClosed("the scripted model was closed")
        self.requests.append(request)
        n_prompt = self.tokens(request.prompt)
        if n_prompt > self._context:
            raise PromptTooLong(f"the prompt has {n_prompt:,} tokens and the context {self._context:,}")
        return n_prompt


class ScriptedEmbedder:
    """An `Embedder` by hashing: each word adds to one number of the vector, so texts that share words are near.

    The same everywhere and always. Texts without words have a vector of their own.
    """

    def __init__(self, dimension: int = 64) -> None:
        self._dimension = dimension
        self._closed = False

    async def embed(self, texts: tuple[str, ...]) -> NDArray[np.float32]:
        """Shape (len(texts), dimension), rows of length 1. Raises `EngineClosed`."""
        if self._closed:
            raise EngineClosed("the scripted embedder was closed")
        vectors = np.zeros((len(texts), self._dimension), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in re.findall(r"\w+", text.casefold()) or [text]:
                digest = hashlib.blake2b(word.encode(errors="replace"), digest_size=4).digest()
                row[int.from_bytes(digest, "big") % self._dimension] += 1.0
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def count(self, text: str) -> int:
        """Words of `text`."""
        return len(re.findall(r"\w+", text))

    def close(self) -> None:
        """Whatever is asked from now on ends with `EngineClosed`."""
        self._closed = True
