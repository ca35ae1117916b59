"""Our engine as a contestant."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from peers.contestant import Ask, Reply
from swarm.engine.base import Generated, GenerateRequest, ScoreRequest
from swarm.engine.llama.process.process import LlamaProcess

# How options may be weighed: as the peers do, by what a grammar of them would write; or as whole texts.
WAYS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "ours": {"measure": "constrained", "need": "margin"},
        "ours, whole texts, best": {"measure": "joint", "need": "margin"},
        "ours, whole texts, all": {"measure": "joint", "need": "all"},
    }
)


class Ours:
    """`name` is one of `WAYS`. Contestants may share an engine."""

    def __init__(self, engine: LlamaProcess, name: str = "ours") -> None:
        self.name = name
        self.engine = engine
        self._way = WAYS[name]

    async def answer(self, asks: Sequence[Ask]) -> list[Reply]:
        return list(await asyncio.gather(*map(self._answer, asks)))

    async def candidates(self, ask: Ask, n: int) -> list[Reply]:
        return [_reply(text) for text in await self.engine.candidates(generate_request(ask), n)]

    async def _answer(self, ask: Ask) -> Reply:
        if ask.options:
            scored = await self.engine.score(ScoreRequest(ask.prompt, ask.options, **self._way))
            return Reply(ask.options[scored.best], 0)
        return _reply(await self.engine.generate(generate_request(ask)))


class OurHosts:
    """Several engines that share the work, as a swarm's hosts do: a thread each instead of one engine with them all."""

    def __init__(self, engines: Sequence[LlamaProcess]) -> None:
        self.name = f"ours, {len(engines)} hosts of 1 thread"
        self._hosts = [Ours(engine) for engine in engines]

    async def answer(self, asks: Sequence[Ask]) -> list[Reply]:
        n = len(self._hosts)
        parts = await asyncio.gather(*(host.answer(asks[i::n]) for i, host in enumerate(self._hosts)))
        return [parts[i % n][i // n] for i in range(len(asks))]

    async def candidates(self, ask: Ask, n: int) -> list[Reply]:
        return await self.answer(ask.seeded(n))


def generate_request(ask: Ask) -> GenerateRequest:
    """The request of an `ask` without options."""
    schema = json.loads(ask.schema) if ask.schema else None
    return GenerateRequest(ask.prompt, ask.max_tokens, schema, temperature=ask.temperature, seed=ask.seed)


def _reply(generated: Generated) -> Reply:
    return Reply(generated.text, generated.tokens_out)
