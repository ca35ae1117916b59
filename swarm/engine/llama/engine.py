"""The local engine: llama.cpp's low-level API, one context, many sequences, all waiting work in one batch."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Any

import msgspec

from swarm.engine.base import (
    EngineSpec,
    EngineStatistics,
    Generated,
    GenerateRequest,
    Prompt,
    Scored,
    ScoreRequest,
)
from swarm.engine.llama.context import Context
from swarm.engine.llama.loop import EngineLoop, Reply
from swarm.engine.llama.model import Model
from swarm.engine.llama.scheduler import Scheduler
from swarm.engine.llama.scoring import OptionTree, option_tree
from swarm.engine.llama.step import Limits
from swarm.engine.llama.structured import Grammars, Matcher
from swarm.engine.llama.work import GenerateWork, PromptTokens, ScoreWork, Work
from swarm.errors import PromptTooLong

_MAX_RUNNING = 96  # llama.cpp has 256 sequences: two for each request leave a quarter for the lanes of options
_KEPT_TREES = 256


class LlamaEngine:
    """A `LanguageModel` over one GGUF file. Open it with `LlamaEngine.open`."""

    def __init__(self, model: Model, context: Context, spec: EngineSpec) -> None:
        self._model = model
        self._grammars = Grammars(model)
        self._limits = Limits(
            cells=context.n_cells,
            tokens=context.max_tokens,
            rows=context.max_rows,
            running=spec.sequences,
            sequences=context.n_sequences,
        )
        self._longest = min(self._limits.cells, model.n_trained)
        self._tree = lru_cache(_KEPT_TREES)(self._make_tree)
        self._loop = EngineLoop(context, Scheduler(self._limits), spec.path)

    @classmethod
    def open(cls, spec: EngineSpec) -> LlamaEngine:
        """Load the model and start the engine's thread.

        Raises `ModelNotFound`, `ModelDamaged`, `ModelError` (chat format), `EngineError` (memory), and `ValueError`
        for a spec that no engine could have.
        """
        _check(spec)
        model = Model.load(spec)
        try:
            return cls(model, Context(model, spec), spec)
        except BaseException:
            model.close()
            raise

    async def score(self, request: ScoreRequest) -> Scored:
        """Exact log-probability of each option. Raises `PromptTooLong`, `EngineClosed`; `ValueError` for no options."""
        tree = self._tree(request.options)
        result: Scored = await self._run(ScoreWork(self._fitting(request.prompt, tree.room), tree))
        return result

    async def generate(self, request: GenerateRequest) -> Generated:
        """Text after the prompt. Raises `PromptTooLong`, `SchemaUnsupported`, `EngineClosed`.

        With a `schema` or `regex` after an `answer_start`, JSON text begins with the space that separates the two.
        `ValueError` for a request that makes no sense (no tokens, both a schema and a regex).
        """
        if request.max_tokens < 1:
            raise ValueError(f"max_tokens is {request.max_tokens}; it must be 1 or more")
        if request.schema is not None and request.regex is not None:
            raise ValueError("a request has a schema and a regex; set one of them")
        prompt = self._fitting(request.prompt, request.max_tokens)
        matcher = await self._matcher(request)
        work = GenerateWork(self._model, prompt, request, matcher)
        result: Generated | None = work.finished()  # a constraint may leave no choice at all
        return result or await self._run(work)

    async def candidates(self, request: GenerateRequest, n: int) -> tuple[Generated, ...]:
        """`n` texts after one prompt; text i is that of the same request with `seed + i`."""
        requests = (msgspec.structs.replace(request, seed=request.seed + i) for i in range(n))
        return tuple(await asyncio.gather(*map(self.generate, requests)))

    def count(self, text: str) -> int:
        """Tokens of `text` as plain text. Raises `EngineClosed`."""
        return len(self._model.tokenise(text))

    def statistics(self) -> EngineStatistics:
        """What the engine has done since it was opened, and what it is doing."""
        return self._loop.statistics()

    def close(self) -> None:
        """Stop after the current step and free all memory; unfinished work ends with `EngineClosed`."""
        self._loop.close()
        self._model.close()

    async def _run(self, work: Work) -> Any:
        reply = Reply()
        self._loop.submit(work, reply)
        try:
            return await reply.future
        except asyncio.CancelledError:
            self._loop.cancel(work)
            raise

    async def _matcher(self, request: GenerateRequest) -> Matcher | None:
        if request.schema is None and request.regex is None:
            return None
        return await asyncio.to_thread(self._grammars.matcher, request)

    def _fitting(self, prompt: Prompt, room: int) -> PromptTokens:
        """The prompt's tokens, if they fit with `room` tokens of answer."""
        shared, own = self._model.render(prompt)
        if not own:  # the model has to read at least one token after what others share
            shared, own = shared[:-1], shared[-1:]
        if not own:
            raise ValueError("the prompt is empty; give it at least one turn with text")
        if len(shared) + len(own) + room > self._longest:
            raise PromptTooLong(
                f"prompt of {len(shared) + len(own)} tokens and {room} for its answer: the limit is {self._longest}; "
                "shorten the input, or raise `context` if the model was trained for more"
            )
        return PromptTokens(tuple(shared), tuple(own))

    def _make_tree(self, options: tuple[str, ...]) -> OptionTree:
        if not options:
            raise ValueError("there are no options to score; give at least one")
        tokens = [self._model.tokenise(option) for option in options]
        if not all(tokens):
            raise ValueError(f"option {tokens.index([])} is empty; every option needs at least one token")
        longest = max(map(len, tokens))
        if longest > self._limits.wave_nodes:
            raise PromptTooLong(
                f"an option of {longest} tokens: the limit is {self._limits.wave_nodes}; shorten it or raise `batch`"
            )
        return option_tree(tokens, self._limits.wave_lanes, self._limits.wave_nodes)


def _check(spec: EngineSpec) -> None:
    for name, value, least, most in (
        ("threads", spec.threads, 1, 4096),
        ("context", spec.context, 64, 1 << 24),
        ("sequences", spec.sequences, 1, _MAX_RUNNING),
        ("batch", spec.batch, 32, 1 << 16),
    ):
        if not least <= value <= most:
            raise ValueError(f"engine {spec.path}: {name} is {value}; it must be {least} to {most}")
