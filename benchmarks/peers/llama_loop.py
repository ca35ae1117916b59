"""llama-cpp-python's `Llama`, one request after the other.

As its documentation has it for speed: one object for everything, so that each prompt reuses what it shares with the one
before; flash attention on; as many threads for prompts as for writing; a choice or JSON through `LlamaGrammar`. Prompts
are token ids, so that it tokenises nothing. Its lookup drafts (`LlamaPromptLookupDecoding`) are left out: they switch
on `logits_all`, which keeps context × vocabulary floats and reads the logits of every prompt token.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import llama_cpp
from llama_cpp.llama_grammar import LlamaGrammar

from peers.contestant import Ask, Reply, options_grammar


class LlamaLoop:
    """Not thread-safe; it blocks the event loop while it works, as nobody else should be working then."""

    name = "Llama in a loop"

    def __init__(self, path: str, threads: int, context: int = 2048) -> None:
        self._llama = llama_cpp.Llama(
            path,
            n_ctx=context,
            n_batch=512,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=True,
            verbose=False,
        )

    async def answer(self, asks: Sequence[Ask]) -> list[Reply]:
        return [self._answer(ask) for ask in asks]

    async def candidates(self, ask: Ask, n: int) -> list[Reply]:
        return await self.answer(ask.seeded(n))

    def close(self) -> None:
        self._llama.close()

    def _answer(self, ask: Ask) -> Reply:
        completion = self._llama.create_completion(
            list(ask.tokens),
            max_tokens=ask.max_tokens,
            temperature=ask.temperature,
            top_k=0,
            top_p=1.0,
            min_p=0.0,
            seed=ask.seed,
            grammar=_grammar(ask.options, ask.schema),
        )
        return Reply(completion["choices"][0]["text"], completion["usage"]["completion_tokens"])


@lru_cache
def _grammar(options: tuple[str, ...], schema: str | None) -> LlamaGrammar | None:
    if options:
        return LlamaGrammar.from_string(options_grammar(options), verbose=False)
    return LlamaGrammar.from_json_schema(schema, verbose=False) if schema else None
