"""Greedy texts among random company against the same texts one by one.

Llama.cpp computes a batch with other kernels than a single token, so sums are rounded in another order. With weights
and KV memory of 32 bits that moves a log-probability by some 1e-5, so only a tie can be decided otherwise; that is
asserted. With quantised weights activations are rounded to 8 bits, and texts part where candidates are tenths of a nat
apart. `SWARM_EQUALITY_MODEL` is a file to try as it is, with a 16-bit memory: what differs is counted and not judged.
`SWARM_EQUALITY` is how many prompts are tried.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from random import Random
from time import monotonic

import llama_cpp
import numpy as np
import pytest
from random_work import RandomWork
from real_models import unpack

from swarm.engine.base import EngineSpec, GenerateRequest, Prompt, Turn
from swarm.engine.llama.engine import LlamaEngine
from swarm.engine.llama.generate_work import GenerateWork
from swarm.errors import OutOfTime, PromptTooLong, SchemaUnsupported

pytestmark = [pytest.mark.live, pytest.mark.slow]

N_PROMPTS = int(os.environ.get("SWARM_EQUALITY", "60"))
AS_IT_IS = os.environ.get("SWARM_EQUALITY_MODEL")
N_TOKENS = 24
TIE = 1e-3  # nats
CONTEXT = 2048
RULES = ("You help.", "You answer a bank's customers. Be short, be kind, and never promise what a bank cannot do.")
OPENINGS = ("What is", "Tell me about", "Write a sentence with", "Why is there", "Explain to a child", "Translate")
SUBJECTS = ("a lost card", "the sea", "exchange rates", "Größe", "two weeks", "AB-1234", "fees", "winter", "a top up")


@dataclass(frozen=True)
class Judge:
    """The plainest evaluation of a model: a context of its own, one sequence. `ends` are the tokens that end a text."""

    plain: llama_cpp.Llama
    ends: tuple[int, ...]

    def gap(self, tokens: Sequence[int], one: int | None, other: int | None) -> float:
        """How far apart two candidates are after `tokens`, in nats; `None` is the end of the text."""
        self.plain.reset()
        self.plain.eval(list(tokens))
        row = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.plain.ctx, -1), (self.plain.n_vocab(),))
        first, second = (row[list(self.ends)].max() if token is None else row[token] for token in (one, other))
        return abs(float(first) - float(second))


@pytest.fixture(scope="module")
def spec(smollm2_path: str, tmp_path_factory: pytest.TempPathFactory) -> EngineSpec:
    if AS_IT_IS:
        return EngineSpec(AS_IT_IS, "chatml", context=CONTEXT, sequences=16)
    path = unpack(smollm2_path, tmp_path_factory.mktemp("unpacked"))
    return EngineSpec(path, "chatml", context=CONTEXT, sequences=16, flash_attention=False, kv_format="f32")


@pytest.fixture(scope="module")
def judge(spec: EngineSpec) -> Iterator[Judge]:
    kind = None if AS_IT_IS else llama_cpp.GGML_TYPE_F32
    plain = llama_cpp.Llama(
        spec.path, n_ctx=512, n_threads=1, n_threads_batch=1, type_k=kind, type_v=kind, verbose=False
    )
    vocabulary = llama_cpp.llama_model_get_vocab(plain.model)
    ends = (token for token in range(plain.n_vocab()) if llama_cpp.llama_vocab_is_eog(vocabulary, token))
    yield Judge(plain, tuple(ends))
    plain.close()


def prompts() -> list[Prompt]:
    """No two alike; some share their first turn and say so, some without saying so, some have nothing to share."""
    chance = Random(3)
    found = []
    for number in range(N_PROMPTS):
        text = f"{chance.choice(OPENINGS)} {chance.choice(SUBJECTS)} and {chance.choice(SUBJECTS)}? ({number})"
        turns = (Turn("system", chance.choice(RULES)), Turn("user", text))[chance.randint(0, 1) :]
        found.append(Prompt(turns, shared=chance.randint(0, len(turns) - 1)))
    return found


def greedy(engine: LlamaEngine, prompt: Prompt) -> GenerateWork:
    """The work of writing after `prompt`: unlike its result it knows its tokens."""
    request = GenerateRequest(prompt, N_TOKENS)
    tokens, shared = engine._fitting(request, N_TOKENS)
    return GenerateWork(engine._model, tokens, request, None, shared=shared, acceptance=engine._acceptance)


async def in_company(engine: LlamaEngine, asked: Sequence[Prompt]) -> list[GenerateWork]:
    """The works, all asked for at once, each with a random request beside it."""
    company, chance = RandomWork(Random(4), CONTEXT // 4), Random(5)
    works = [greedy(engine, prompt) for prompt in asked]

    async def other() -> None:
        with suppress(PromptTooLong, SchemaUnsupported, OutOfTime):
            await (engine.score(company.score()) if chance.random() < 0.5 else engine.generate(company.generate()))

    await asyncio.gather(*(job for work in works for job in (engine._run(work, None, monotonic()), other())))
    return works


async def alone(spec: EngineSpec, asked: Sequence[Prompt]) -> list[GenerateWork]:
    """The works, one after the other, in an engine that has nothing else to do."""
    engine = LlamaEngine.open(spec)
    try:
        works = [greedy(engine, prompt) for prompt in asked]
        for work in works:
            await engine._run(work, None, monotonic())
        return works
    finally:
        engine.close()


def parting(one: GenerateWork, other: GenerateWork) -> int | None:
    """The step at which the two texts differ first."""
    pairs = enumerate(zip_longest(one._tokens, other._tokens))
    return next((step for step, (mine, yours) in pairs if mine != yours), None)


def gap(judge: Judge, one: GenerateWork, other: GenerateWork, step: int) -> float:
    """Nats between what the two texts go on with at this step."""
    mine, yours = (work._tokens[step] if step < len(work._tokens) else None for work in (one, other))
    return judge.gap([*one.prompt, *one._tokens[:step]], mine, yours)


def moved(one: GenerateWork, other: GenerateWork) -> float:
    """The largest difference, in nats, between how likely a token was in the one text and the same one in the other."""
    same = range(len(one._logprobs))[: parting(one, other)]
    return max((abs(one._logprobs[at] - other._logprobs[at]) for at in same), default=0.0)


async def test_company_changes_no_greedy_text(
    spec: EngineSpec, judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    """A text is the same in any company, or the step at which it parts has two candidates that are as good as equal."""
    asked = prompts()
    engine = LlamaEngine.open(spec)
    try:
        together = await in_company(engine, asked)
        drafted = sum(work._accepted for work in together)
    finally:
        engine.close()
    pairs = list(zip(together, await alone(spec, asked), strict=True))
    partings = [(*pair, step) for pair in pairs if (step := parting(*pair)) is not None]
    gaps = [gap(judge, *found) for found in partings]
    with capsys.disabled():
        worst, most = max(gaps, default=0.0), max(moved(*pair) for pair in pairs)
        print(
            f"\n{len(asked)} texts, {drafted} of their tokens from drafts; log-probabilities move by up to {most:.1e}"
        )
        print(f"{len(gaps)} texts part, where their candidates are up to {worst:.1e} nats apart")
    if not AS_IT_IS:
        assert all(found < TIE for found in gaps), gaps
