"""The local engine in a process of its own: neither a damaged model file nor a native crash takes the host along.

    host                                              its engine's process
    LlamaProcess.score ── Keeper.submit ──── frames ──► Service ──► LlamaEngine
             ▲                                              │
             └───── Reply ◄── the keeper's thread ◄─ frames ┘

The host reads a file's description itself (`swarm.models.gguf_contents`) before any native code sees it; the child
loads it and decodes a first token; only then does the host load its vocabulary, to count tokens without asking.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocols.engine import Candidates, FrameError, FrameTooLarge, Generate, Score, frame
from swarm.engine.base import EngineSpec, EngineStatistics, Generated, GenerateRequest, Origin, Scored, ScoreRequest
from swarm.engine.llama.process.keeper import Keeper
from swarm.engine.llama.process.life import Patience
from swarm.engine.llama.reply import Reply
from swarm.errors import OutOfTime, PromptTooLong
from swarm.models.gguf_contents import read_contents
from swarm.models.lora import read_adapter

if TYPE_CHECKING:
    from swarm.engine.llama.model import Model

_LATE_S = 1.0  # the process gives work up at its time; if it does not, the host does this much later


class LlamaProcess:
    """A `LanguageModel` over one GGUF file. Open it with `LlamaProcess.open`."""

    def __init__(self, keeper: Keeper, vocabulary: Model) -> None:
        self._keeper = keeper
        self._vocabulary = vocabulary

    @classmethod
    def open(cls, spec: EngineSpec, patience: Patience | None = None) -> LlamaProcess:
        """Check the files, start the process, and return once the model has decoded a first token.

        Raises `ModelNotFound`, `ModelDamaged`, `ModelError` (chat format, unreadable, too slow, killed), `EngineError`
        (memory, installation), and `ValueError` for a spec that no engine could have.
        """
        read_contents(Path(spec.path))
        for adapter in spec.adapters:
            read_adapter(Path(adapter))
        keeper = Keeper(spec, patience or Patience())
        try:
            from swarm.engine.llama.model import Model  # brings llama.cpp in while the process does the same

            keeper.wait_until_open()
            return cls(keeper, Model.load(spec, vocabulary_only=True))
        except BaseException:
            keeper.close()
            raise

    async def score(self, request: ScoreRequest) -> Scored:
        """As `LlamaEngine.score`. Raises also `EngineCrashed`."""
        scored: Scored = await self._ask(lambda id: Score(id, request), request.origin)
        return scored

    async def generate(self, request: GenerateRequest) -> Generated:
        """As `LlamaEngine.generate`. Raises also `EngineCrashed`."""
        generated: Generated = await self._ask(lambda id: Generate(id, request), request.origin)
        return generated

    async def candidates(self, request: GenerateRequest, n: int) -> tuple[Generated, ...]:
        """As `LlamaEngine.candidates`. Raises also `EngineCrashed`."""
        texts: tuple[Generated, ...] = await self._ask(lambda id: Candidates(id, request, n), request.origin)
        return texts

    def count(self, text: str) -> int:
        """Tokens of `text` as plain text, counted in this process. Raises `EngineClosed`."""
        return len(self._vocabulary.tokenise(text))

    def statistics(self) -> EngineStatistics:
        """As the process last reported: with every result, and five times a second while something changes.

        The token that is decoded on opening is counted.
        """
        return self._keeper.statistics()

    def close(self) -> None:
        """End the process after its current step; unfinished work ends with `EngineClosed`. May be called twice."""
        self._keeper.close()
        self._vocabulary.close()

    async def _ask(self, message: Callable[[int], Score | Generate | Candidates], origin: Origin) -> Any:
        id = next(self._keeper.ids)
        try:
            data = frame(message(id))
        except FrameTooLarge as error:
            raise PromptTooLong(f"the request cannot be sent to the engine: {error}; shorten the input") from None
        except FrameError as error:
            raise ValueError(f"the request cannot be sent to the engine: {error}") from None
        reply = Reply()
        self._keeper.submit(id, data, reply)
        try:
            async with asyncio.timeout(None if origin.left_s is None else origin.left_s + _LATE_S):
                return await reply.future
        except TimeoutError:
            raise OutOfTime(
                f"the engine did not answer within {origin.left_s:.1f} s; give the step more time"
            ) from None
        finally:
            self._keeper.drop(id)
