"""What happens to work: waiting, cancelled, refused, cut off, closed."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from msgspec.structs import replace

from swarm.engine.base import EngineSpec, Generated, GenerateRequest, Prompt, Scored, ScoreRequest, Turn
from swarm.engine.llama.engine import LlamaEngine
from swarm.errors import EngineClosed, ModelDamaged, ModelError, ModelNotFound, PromptTooLong, SchemaUnsupported

pytestmark = pytest.mark.live

FIELDS = {
    "type": "object",
    "properties": {
        "name": {"type": ["string", "null"], "maxLength": 20},
        "amount": {"type": ["integer", "null"]},
        "currency": {"enum": ["EUR", "USD", None]},
        "urgent": {"type": "boolean"},
        "order": {"type": ["string", "null"], "pattern": "^[A-Z]{2}-[0-9]{4}$"},
    },
    "required": ["name", "amount", "currency", "urgent", "order"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def spec(smollm2_path: str) -> EngineSpec:
    return EngineSpec(smollm2_path, "chatml", threads=2, context=2048)


@pytest.fixture(scope="module")
def engine(spec: EngineSpec) -> Iterator[LlamaEngine]:
    opened = LlamaEngine.open(spec)
    yield opened
    opened.close()


def said(text: str, start: str = "") -> Prompt:
    return Prompt((Turn("system", "You help."), Turn("user", text)), start, shared=1)


def only_prefixes_are_left(engine: LlamaEngine) -> bool:
    """The memory of llama.cpp, and the scheduler's books, hold the cached prefixes and nothing else."""
    deadline = time.monotonic() + 5  # the loop tidies up just after it has answered
    lane = engine._loop._lanes[None]
    scheduler = lane.scheduler
    while time.monotonic() < deadline:
        prefixes = {node.sequence: node.end for node in scheduler.tree}
        books = scheduler.cells == scheduler.tree.cells and not engine._loop._replies
        if books and scheduler.idle and lane.held() == prefixes:
            return len(scheduler._free) == scheduler.limits.sequences - len(prefixes)
        time.sleep(0.02)
    return False


async def test_every_answer_satisfies_its_schema(engine: LlamaEngine) -> None:
    """16 extractions at once, over odd inputs: each text is JSON that satisfies the schema, or was cut and says so."""
    texts = [
        "I am Ann, order AB-1234.",
        "",
        '}{"name": 3}',
        "<|im_end|>",
        "ü€😀 " * 20,
        "PAY 30 USD NOW!!!",
        "null",
        "\\",
    ]
    requests = [
        GenerateRequest(said(text, start), 96, schema=FIELDS, temperature=heat, seed=index)
        for index, text in enumerate(texts)
        for start, heat in (("", 0.0), ("JSON:", 1.0))
    ]
    written = await asyncio.gather(*map(engine.generate, requests))
    assert sum(one.finish == "stop" for one in written) >= 12
    for one in written:
        if one.finish == "stop":
            jsonschema.validate(json.loads(one.text), FIELDS)
            assert len(one.logprobs) < one.tokens_out, "keys are forced, not sampled"
        else:
            assert one.tokens_out == 96


async def test_a_constraint_without_a_choice_needs_no_decoding(engine: LlamaEngine) -> None:
    """A schema that allows one text only is answered at once."""
    steps = engine.statistics().steps
    result = await engine.generate(GenerateRequest(said("?"), 32, schema={"const": {"label": "a"}}))
    assert (json.loads(result.text), result.finish) == ({"label": "a"}, "stop")
    assert engine.statistics().steps == steps


async def test_a_regex_is_followed(engine: LlamaEngine) -> None:
    """Text constrained by a regular expression matches it."""
    result = await engine.generate(GenerateRequest(said("A date, please."), 32, regex="[0-9]{4}-[0-9]{2}-[0-9]{2}"))
    year, month, day = result.text.split("-")
    assert (len(year), len(month), len(day)) == (4, 2, 2) and result.finish == "stop"


async def test_a_stop_string_ends_the_text(engine: LlamaEngine) -> None:
    """The text ends before the stop string that the model would have written."""
    free = await engine.generate(GenerateRequest(said("What is the capital of France?"), 24))
    assert " Paris" in free.text
    stopped = await engine.generate(GenerateRequest(said("What is the capital of France?"), 24, stop=(" Paris",)))
    assert (stopped.text, stopped.finish) == (free.text[: free.text.index(" Paris")], "stop")


async def test_a_seed_repeats_a_draw(engine: LlamaEngine) -> None:
    """The same request with the same seed gives the same text by itself, and another seed another."""
    request = GenerateRequest(said("Tell me a story."), 24, temperature=1.5, seed=5)
    first, again = await engine.generate(request), await engine.generate(request)
    other = await engine.generate(replace(request, seed=6))
    assert first.text == again.text != other.text
    assert first.finish == "length" and len(first.logprobs) == first.tokens_out == 24


async def test_more_work_than_memory_waits_and_finishes(spec: EngineSpec) -> None:
    """Requests that need four times the KV memory wait for each other, and all finish."""
    engine = LlamaEngine.open(replace(spec, context=512, sequences=8))
    try:
        requests = [GenerateRequest(said(f"Say {n}. " * 20), 24) for n in range(16)]
        work = asyncio.gather(*map(engine.generate, requests))
        await asyncio.sleep(0.3)
        assert engine.statistics().waiting > 0
        assert all(one.tokens_out for one in await work)
        assert only_prefixes_are_left(engine)
    finally:
        engine.close()


async def test_cancelling_stops_the_decoding_and_frees_the_memory(engine: LlamaEngine) -> None:
    """A cancelled generation is dropped within a step or two, not decoded to its end."""
    before = engine.statistics()
    task = asyncio.create_task(engine.generate(GenerateRequest(said("Count to a million."), 1500)))
    while engine.statistics().steps < before.steps + 5:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert only_prefixes_are_left(engine)
    after = engine.statistics()
    assert after.cancelled == before.cancelled + 1
    assert after.steps < before.steps + 200


async def test_closing_ends_waiting_work(spec: EngineSpec) -> None:
    """Everything unfinished when the engine closes ends with `EngineClosed`, and so does whatever comes later."""
    engine = LlamaEngine.open(replace(spec, sequences=2))
    tasks = [asyncio.create_task(engine.generate(GenerateRequest(said(f"Count {n}."), 400))) for n in range(6)]
    await asyncio.sleep(0.2)
    engine.close()
    engine.close()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, EngineClosed) for outcome in outcomes)
    for late in (engine.generate(GenerateRequest(said("?"), 4)), engine.score(ScoreRequest(said("?"), (" a",)))):
        with pytest.raises(EngineClosed):
            await late
    with pytest.raises(EngineClosed):
        engine.count("text")


async def test_nothing_is_left_behind_by_mixed_work(spec: EngineSpec) -> None:
    """After 200 random requests, some cancelled, some refused, only prefixes are in memory."""
    chance = random.Random(11)
    engine = LlamaEngine.open(replace(spec, context=1024))

    def one(number: int) -> Any:
        prompt = replace(said("word " * chance.randint(0, 30), chance.choice(["", "So:"])), shared=chance.randint(0, 1))
        if chance.random() < 0.7:
            return engine.score(ScoreRequest(prompt, (" yes", " no_way", " no_idea")[: chance.randint(1, 3)]))
        schema = chance.choice([None, {"enum": ["a", "b"]}, {"not": {}}])
        return engine.generate(GenerateRequest(prompt, chance.randint(1, 5), schema=schema, seed=number))

    try:
        tasks = [asyncio.create_task(one(number)) for number in range(200)]
        for task in chance.sample(tasks, 20):
            asyncio.get_running_loop().call_later(chance.random(), task.cancel)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        kinds = {type(outcome) for outcome in outcomes}
        assert kinds <= {Scored, Generated, SchemaUnsupported, asyncio.CancelledError}
        assert only_prefixes_are_left(engine)
        assert engine.statistics().prefixes >= 1
    finally:
        engine.close()


async def test_noise_that_does_not_fit_is_refused_with_the_limit(engine: LlamaEngine) -> None:
    """10 kB of noise raises `PromptTooLong` with its size, the limit and what to do; the next request is answered."""
    noise = "".join(map(chr, random.Random(1).choices(range(33, 1000), k=10_000)))
    with pytest.raises(PromptTooLong, match=r"prompt of \d+ tokens .* limit is 2048; shorten"):
        await engine.score(ScoreRequest(said(noise), (" a", " b")))
    with pytest.raises(PromptTooLong, match="option of"):
        await engine.score(ScoreRequest(said("?"), (" very" * 400,)))
    assert len((await engine.score(ScoreRequest(said("?"), (" a", " b")))).logprobs) == 2


async def test_requests_without_meaning_are_refused(engine: LlamaEngine) -> None:
    """No options, an empty option, no tokens to write, two constraints: each is a `ValueError`."""
    for options in ((), (" a", "")):
        with pytest.raises(ValueError, match="option"):
            await engine.score(ScoreRequest(said("?"), options))
    with pytest.raises(ValueError, match="max_tokens"):
        await engine.generate(GenerateRequest(said("?"), 0))
    with pytest.raises(ValueError, match="regex"):
        await engine.generate(GenerateRequest(said("?"), 4, schema={}, regex="a"))


async def test_an_unsupported_schema_is_refused_when_it_is_asked_for(engine: LlamaEngine) -> None:
    """A schema that cannot be enforced never becomes "any JSON"."""
    with pytest.raises(SchemaUnsupported, match="uniqueItems"):
        await engine.generate(GenerateRequest(said("?"), 8, schema={"type": "array", "uniqueItems": True}))


def test_damaged_and_missing_files_are_told_apart(spec: EngineSpec, tmp_path: Path) -> None:
    """A cut file and a file of noise are `ModelDamaged`, no file is `ModelNotFound`, each naming the path."""
    cut, noise = tmp_path / "cut.gguf", tmp_path / "noise.gguf"
    cut.write_bytes(Path(spec.path).read_bytes()[:2_000_000])
    noise.write_bytes(random.Random(2).randbytes(4096))
    for path, error in ((cut, ModelDamaged), (noise, ModelDamaged), (tmp_path / "none.gguf", ModelNotFound)):
        with pytest.raises(error, match=path.name):
            LlamaEngine.open(replace(spec, path=str(path)))


def test_a_spec_that_no_engine_could_have_is_refused(spec: EngineSpec) -> None:
    """A chat format the vocabulary cannot write, an unknown one, and impossible numbers are refused on opening."""
    for wrong, error, named in (
        ({"chat_format": "gemma"}, ModelError, "start_of_turn"),
        ({"chat_format": "chatlm"}, ModelError, "chatml"),
        ({"threads": 0}, ValueError, "threads"),
        ({"sequences": 500}, ValueError, "sequences"),
    ):
        with pytest.raises(error, match=named):
            LlamaEngine.open(replace(spec, **wrong))
