"""The local engine: llama.cpp's low-level API, one context, many sequences, all waiting work in one batch."""

from __future__ import annotations

import asyncio
import hashlib
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import llama_cpp
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
from swarm.engine.llama.drafting import Acceptance
from swarm.engine.llama.generate_work import GenerateWork
from swarm.engine.llama.grammar.structured import Grammars, Matcher
from swarm.engine.llama.lane import Lane
from swarm.engine.llama.loop import EngineLoop
from swarm.engine.llama.model import Model
from swarm.engine.llama.reply import Reply
from swarm.engine.llama.saved import SavedPrefixes
from swarm.engine.llama.score_work import ScoreWork
from swarm.engine.llama.scoring import OptionTree, option_tree
from swarm.engine.llama.step import Limits
from swarm.engine.llama.work import Work
from swarm.errors import PromptTooLong

_MAX_RUNNING = 96  # llama.cpp has 256 sequences: two for each request leave a quarter for the lanes of options
_ADAPTER_SHARE = 4  # an adapter's context has this part of the main one's cells,
_ADAPTER_CELLS = 2048  # but no fewer than these
_KEPT_TREES = 256
_KEPT_PRIORS = 256


class LlamaEngine:
    """A `LanguageModel` over one GGUF file. Open it with `LlamaEngine.open`."""

    def __init__(self, model: Model, context: Context, spec: EngineSpec) -> None:
        self._model = model
        self._spec = spec
        self._grammars = Grammars(model)
        self._acceptance = Acceptance()
        self._limits = _limits(context, spec)
        self._folders = {adapter: _prefix_folder(spec, adapter) for adapter in (None, *spec.adapters)}
        self._tree = lru_cache(_KEPT_TREES)(self._make_tree)
        self._priors: dict[ScoreRequest, asyncio.Future[Scored]] = {}
        lane = Lane(context, self._limits, spec.path, self._saved(None))
        self._loop = EngineLoop(lane, self._open_lane, spec.path)

    @classmethod
    def open(cls, spec: EngineSpec) -> LlamaEngine:
        """Load the model and its adapters, and start the engine's thread.

        Raises `ModelNotFound`, `ModelDamaged`, `ModelError` (chat format), `EngineError` (memory), and `ValueError`
        for a spec that no engine could have.
        """
        _check(spec)
        model = Model.load(spec)
        try:
            for adapter in spec.adapters:
                model.adapter(adapter)  # before any context: llama.cpp plans a graph's size with the adapters it knows
            return cls(model, Context(model, spec), spec)
        except BaseException:
            model.close()
            raise

    async def score(self, request: ScoreRequest) -> Scored:
        """Log-probability (nats) of each option. Raises `PromptTooLong`, `OutOfTime`, `EngineClosed`.

        `ValueError` for a request that makes no sense (no options, offsets for other options, an unknown adapter).
        """
        came = time.monotonic()
        tree = self._tree(request.options, request.measure == "constrained")
        if request.offsets and len(request.offsets) != len(request.options):
            raise ValueError(f"{len(request.offsets)} offsets for {len(request.options)} options; give one for each")
        offsets = request.offsets or (0.0,) * len(request.options)
        if request.prior is not None:
            prior = await self._prior(request, request.prior)
            offsets = tuple(own - request.prior_share * score for own, score in zip(offsets, prior.ranked, strict=True))
        tokens, shared = self._fitting(request, tree.room)
        work = ScoreWork(tokens, tree, request, offsets, shared=shared)
        result: Scored = await self._run(work, request.adapter, came)
        return result

    async def generate(self, request: GenerateRequest) -> Generated:
        """Text after the prompt. Raises `PromptTooLong`, `SchemaUnsupported`, `OutOfTime`, `EngineClosed`.

        With a `schema` or `regex` after an `answer_start`, JSON text begins with the space that separates the two.
        `ValueError` for a request that makes no sense (no tokens, both a schema and a regex, an unknown adapter).
        """
        came = time.monotonic()
        if request.max_tokens < 1:
            raise ValueError(f"max_tokens is {request.max_tokens}; it must be 1 or more")
        if request.schema is not None and request.regex is not None:
            raise ValueError("a request has a schema and a regex; set one of them")
        tokens, shared = self._fitting(request, request.max_tokens)
        matcher = await self._matcher(request)
        work = GenerateWork(self._model, tokens, request, matcher, shared=shared, acceptance=self._acceptance)
        result: Generated | None = work.finished()  # a constraint may leave no choice at all
        return result or await self._run(work, request.adapter, came)

    async def candidates(self, request: GenerateRequest, n: int) -> tuple[Generated, ...]:
        """`n` texts after one prompt, which is decoded once; text i is that of the same request with `seed + i`.

        Raises what `generate` raises.
        """
        requests = (msgspec.structs.replace(request, seed=request.seed + i) for i in range(n))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.generate(one)) for one in requests]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return tuple(task.result() for task in tasks)

    def count(self, text: str) -> int:
        """Tokens of `text` as plain text. Raises `EngineClosed`."""
        return len(self._model.tokenise(text))

    def statistics(self) -> EngineStatistics:
        """What the engine has done since it was opened, and what it is doing."""
        return self._loop.statistics()

    def close(self) -> None:
        """Stop after the current step, save useful prefixes, free all memory; unfinished work gets `EngineClosed`.

        May be called twice.
        """
        self._loop.close()
        self._model.close()

    async def _run(self, work: Work, adapter: str | None, came: float) -> Any:
        if adapter is not None and adapter not in self._spec.adapters:
            raise ValueError(f"engine {self._spec.path}: adapter {adapter!r} was not named when it was opened")
        reply = Reply()
        self._loop.submit(work, reply, adapter, came)
        try:
            return await reply.future
        except asyncio.CancelledError:
            self._loop.cancel(work)
            raise

    def _open_lane(self, adapter: str) -> Lane:
        """A context in which `adapter` applies, over the same weights.

        It is smaller than the main one: llama.cpp writes zeros to all of its KV memory at once, so every cell is
        resident whether it is used or not, and a swarm may have many adapters of which few work at a time.
        """
        spec = msgspec.structs.replace(self._spec, context=_cells(self._spec, adapter))
        context = Context(self._model, spec, adapter)
        return Lane(context, _limits(context, spec), f"{spec.path} + {adapter}", self._saved(adapter))

    async def _prior(self, request: ScoreRequest, prompt: Prompt) -> Scored:
        """How the options score after the content-free prompt: computed once for all requests that name it."""
        key = ScoreRequest(
            prompt, request.options, measure=request.measure, by_length=request.by_length, adapter=request.adapter
        )
        known = self._priors.get(key)
        if known is None or not _may_be_awaited(known):
            while len(self._priors) >= _KEPT_PRIORS:
                del self._priors[next(iter(self._priors))]
            known = self._priors[key] = asyncio.ensure_future(self.score(key))
        try:
            return known.result() if known.done() else await asyncio.shield(known)
        except Exception:
            self._priors.pop(key, None)
            raise

    async def _matcher(self, request: GenerateRequest) -> Matcher | None:
        if request.schema is None and request.regex is None:
            return None
        return await asyncio.to_thread(self._grammars.matcher, request)

    def _saved(self, adapter: str | None) -> SavedPrefixes | None:
        folder = self._folders[adapter]
        return None if folder is None else SavedPrefixes(folder)

    def _fitting(self, request: ScoreRequest | GenerateRequest, room: int) -> tuple[list[int], int]:
        """The prompt's tokens and how many of them are its shared turns, if they fit with `room` tokens of answer."""
        shared, own = self._model.render(request.prompt)
        if not shared and not own:
            raise ValueError("the prompt is empty; give it at least one turn with text")
        longest = min(_cells(self._spec, request.adapter), self._model.n_trained)
        if len(shared) + len(own) + room > longest:
            raise PromptTooLong(
                f"prompt of {len(shared) + len(own)} tokens and {room} for its answer: the limit is {longest}"
                f"{' with an adapter' if request.adapter else ''}; "
                "shorten the input, or raise `context` if the model was trained for more"
            )
        return [*shared, *own], len(shared)

    def _make_tree(self, options: tuple[str, ...], constrained: bool) -> OptionTree:
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
        return option_tree(tokens, self._limits.wave_lanes, self._limits.wave_nodes, constrained=constrained)


def _may_be_awaited(future: asyncio.Future[Scored]) -> bool:
    """It has a result, or will have one in this event loop."""
    return not future.cancelled() and (future.done() or future.get_loop() is asyncio.get_running_loop())


def _limits(context: Context, spec: EngineSpec) -> Limits:
    return Limits(
        cells=context.n_cells,
        tokens=context.max_tokens,
        rows=context.max_rows,
        running=spec.sequences,
        sequences=context.n_sequences,
    )


def _cells(spec: EngineSpec, adapter: str | None) -> int:
    """Tokens of KV memory for the work of one adapter, or for that without any."""
    return spec.context if adapter is None else min(spec.context, max(spec.context // _ADAPTER_SHARE, _ADAPTER_CELLS))


def _prefix_folder(spec: EngineSpec, adapter: str | None) -> Path | None:
    """Where prefixes are kept on disk: a folder named after everything that decoded tokens depend on."""
    if spec.prefix_folder is None:
        return None
    parts = [
        spec.model_hash or _fingerprint(spec.path),
        _fingerprint(adapter) if adapter else "",
        spec.kv_format,
        str(spec.flash_attention),
        llama_cpp.__version__,
    ]
    return Path(spec.prefix_folder) / hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _fingerprint(path: str) -> str:
    """Stands for a file's content where its hash is not known."""
    status = Path(path).stat()
    return f"{Path(path).resolve()} {status.st_size} {status.st_mtime_ns}"


def _check(spec: EngineSpec) -> None:
    for name, value, least, most in (
        ("threads", spec.threads, 1, 4096),
        ("context", spec.context, 64, 1 << 24),
        ("sequences", spec.sequences, 1, _MAX_RUNNING),
        ("batch", spec.batch, 32, 1 << 16),
    ):
        if not least <= value <= most:
            raise ValueError(f"engine {spec.path}: {name} is {value}; it must be {least} to {most}")
