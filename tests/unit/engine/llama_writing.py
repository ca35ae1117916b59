"""For tests of writing: a vocabulary of bytes, llguidance's matchers for it, and a memory that plays llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from swarm.engine.base import Generated, GenerateRequest, Origin, Prompt, Turn
from swarm.engine.llama.drafting import Acceptance
from swarm.engine.llama.generate_work import GenerateWork
from swarm.engine.llama.grammar.matcher import Matcher
from swarm.engine.llama.grammar.structured import byte_compiler

END = 261
SIZE = 262  # llguidance's byte tokeniser: 256 bytes, then control tokens
NO_ROWS = np.empty((0, SIZE), np.float32)

Model = Callable[[Sequence[int]], NDArray[np.float32]]  # the logits after these tokens of the answer


class Bytes:
    """A vocabulary whose tokens are bytes."""

    def is_end(self, token: int) -> bool:
        return token == END

    def piece(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else b""


def request(max_tokens: int = 99, **given: object) -> GenerateRequest:
    return GenerateRequest(Prompt((Turn("user", ""),)), max_tokens, origin=Origin(specialist="s"), **given)  # type: ignore[arg-type]


def matcher(asked: GenerateRequest) -> Matcher | None:
    """A matcher of the request's constraint over bytes."""
    return None if asked.schema is None and asked.regex is None else byte_compiler().matcher(asked)


def saying(text: bytes) -> Model:
    """A model that says `text`, token by token, and ends."""

    def model(tokens: Sequence[int]) -> NDArray[np.float32]:
        row = np.zeros(SIZE, np.float32)
        row[text[len(tokens)] if len(tokens) < len(text) else END] = 9
        return row

    return model


def random_model(seed: int, context: int = 99, strength: float = 1.0) -> Model:
    """Logits that depend on the last `context` tokens: the smaller, the more the text repeats itself."""

    def model(tokens: Sequence[int]) -> NDArray[np.float32]:
        key = [seed, *tokens[-context:]]
        return np.random.default_rng(key).standard_normal(SIZE, np.float32) * np.float32(strength)

    return model


def run(
    asked: GenerateRequest,
    model: Model,
    prompt: Sequence[int] = (1, 2, 3),
    acceptance: Acceptance | None = None,
    companions: int = 0,
) -> tuple[Generated, int]:
    """What the work writes with this model, and in how many steps. The memory holds what a context would hold."""
    work = GenerateWork(Bytes(), prompt, asked, matcher(asked), acceptance=acceptance)
    result = work.finished()
    memory: list[int] = []
    steps = 0
    while result is None:
        steps += 1
        if work.writing:
            work.prepare(companions, 8)
        memory += work.pending
        heads = np.stack([model(memory[len(prompt) : len(memory) - i]) for i in reversed(range(work.wanted))])
        work.pending.clear()
        assert len(memory) <= len(prompt) + work.room
        outcome = work.absorb(heads, None, NO_ROWS)
        memory = memory[: len(memory) - work.forgotten]
        assert outcome is None or isinstance(outcome, Generated)
        result = outcome
    return result, steps
