"""Prefixes: shared without being told, kept on disk, and never a reason for another answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from swarm.engine.base import EngineSpec, EngineStatistics, GenerateRequest, Prompt, Scored, ScoreRequest, Turn
from swarm.engine.llama.engine import LlamaEngine

pytestmark = pytest.mark.live

RULES = Turn(
    "system", "You sort messages of a bank's customers. " + "Read each of them twice, then say what it is. " * 12
)
OPTIONS = (" card lost", " card late", " refund", " exchange rate")
MESSAGES = ("My card is gone.", "Where is my money?", "The rate was wrong.", "It has been two weeks now.")
TOLERANCE = 0.7  # nats; llama.cpp's own ways of attention differ by as much with 8-bit weights


@pytest.fixture(params=["smollm2", "gemma"])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> EngineSpec:
    path = request.getfixturevalue(f"{request.param}_path")
    chat_format = {"smollm2": "chatml", "gemma": "gemma"}[request.param]
    return EngineSpec(path, chat_format, threads=2, context=2048, prefix_folder=str(tmp_path / "prefixes"))


async def ask(spec: EngineSpec, messages: Sequence[str], shared: int = 0) -> tuple[list[Scored], EngineStatistics]:
    """What a new engine says to all of the messages at once, and what that took."""
    engine = LlamaEngine.open(spec)
    try:
        prompts = (Prompt((RULES, Turn("user", message)), "It is about:", shared) for message in messages)
        scored = await asyncio.gather(*(engine.score(ScoreRequest(prompt, OPTIONS)) for prompt in prompts))
        return scored, engine.statistics()
    finally:
        engine.close()


def same(one: Sequence[Scored], other: Sequence[Scored]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(a.logprobs == pytest.approx(b.logprobs, abs=TOLERANCE) for a, b in pairs)


def files(spec: EngineSpec) -> list[Path]:
    return list(Path(str(spec.prefix_folder)).rglob("*.prefix"))


async def test_what_prompts_have_in_common_is_decoded_once(spec: EngineSpec) -> None:
    """Prompts that wait together and say nothing of what they share read their beginning once."""
    together, statistics = await ask(replace(spec, prefix_folder=None), MESSAGES)
    alone = [(await ask(replace(spec, prefix_folder=None), [message]))[0][0] for message in MESSAGES]
    assert statistics.tokens_cached > 3 * 100
    assert statistics.tokens_decoded < sum(scored.tokens_in for scored in alone) / 2
    assert same(together, alone)


async def test_a_new_engine_reads_the_prefix_from_disk(spec: EngineSpec) -> None:
    """A prefix that was of use is there after a restart: nobody decodes it again, and the answers are the same."""
    before, first = await ask(spec, MESSAGES, shared=1)
    after, second = await ask(spec, MESSAGES, shared=1)
    assert first.tokens_restored == 0 and second.tokens_restored > 100
    assert second.tokens_decoded <= first.tokens_decoded - second.tokens_restored
    assert same(before, after)


async def test_a_prefix_used_once_is_not_worth_a_file(spec: EngineSpec) -> None:
    """Nothing is written for a prompt that nobody repeats."""
    await ask(spec, MESSAGES[:1], shared=1)
    assert not files(spec)


async def test_a_damaged_prefix_is_decoded_again(spec: EngineSpec) -> None:
    """A saved prefix with a flipped bit is noticed, deleted and decoded; the answer does not change."""
    before, first = await ask(spec, MESSAGES, shared=1)
    assert files(spec)
    for file in files(spec):
        data = bytearray(file.read_bytes())
        data[-100] ^= 1
        file.write_bytes(data)
    after, second = await ask(spec, MESSAGES, shared=1)
    assert second.tokens_restored == 0 and second.tokens_decoded == first.tokens_decoded
    assert same(before, after)


async def test_another_kv_format_does_not_find_the_prefix(spec: EngineSpec) -> None:
    """What was decoded under other parameters is not mixed in."""
    await ask(spec, MESSAGES, shared=1)
    assert files(spec)
    _, statistics = await ask(replace(spec, kv_format="q8_0"), MESSAGES, shared=1)
    assert statistics.tokens_restored == 0


async def test_candidates_read_their_prompt_once(spec: EngineSpec) -> None:
    """Eight samples of one answer decode the prompt once, and each is what its seed gives alone."""
    engine = LlamaEngine.open(replace(spec, prefix_folder=None))
    try:
        request = GenerateRequest(Prompt((RULES, Turn("user", "Write a line."))), 6, temperature=0.9, seed=11)
        drawn = await engine.candidates(request, 8)
        assert engine.statistics().tokens_decoded < 160 + 8 * 10
        assert sum(text.tokens_cached > 100 for text in drawn) == 7
        assert len({text.text for text in drawn}) > 1
    finally:
        engine.close()
