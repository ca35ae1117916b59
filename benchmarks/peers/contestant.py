"""The seam between the tables and whoever does the work: one request in everybody's terms, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

from swarm.engine.base import Prompt


@dataclass(frozen=True)
class Ask:
    """One request. `tokens` are those of `prompt`, so that all contestants read the very same.

    With `options` the answer is one of them, with `schema` (JSON text) an object that satisfies it. `temperature` 0 is
    greedy; else samples are drawn from the whole vocabulary, nothing cut off.
    """

    prompt: Prompt
    tokens: tuple[int, ...]
    max_tokens: int
    options: tuple[str, ...] = ()
    schema: str | None = None
    temperature: float = 0.0
    seed: int = 0

    def seeded(self, n: int) -> list[Ask]:
        """The same request `n` times, with seeds that follow each other."""
        return [replace(self, seed=self.seed + i) for i in range(n)]


@dataclass(frozen=True)
class Reply:
    """`tokens`: how many were written; 0 where options were scored."""

    text: str
    tokens: int

    def parsed(self) -> Any:
        """The JSON value, or `None` where the text is none."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None


class Contestant(Protocol):
    name: str

    async def answer(self, asks: Sequence[Ask]) -> list[Reply]:
        """All of them wait at once; the replies come in their order."""
        ...

    async def candidates(self, ask: Ask, n: int) -> list[Reply]:
        """`n` different samples after one prompt, in the cheapest way that there is."""
        ...


@lru_cache
def options_grammar(options: tuple[str, ...]) -> str:
    """GBNF that matches exactly one of `options`."""
    return "root ::= " + " | ".join(json.dumps(option) for option in options)
