"""Adapters: many specialists on one model, each with a LoRA of its own, and none in another's way."""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import llama_cpp
import pytest
from msgspec.structs import replace
from tiny_gguf import TinyShape, write_tiny_model
from tiny_lora import queries, write_lora

import swarm
from swarm.engine.base import EngineSpec, Generated, GenerateRequest, Origin, Prompt, Scored, ScoreRequest, Turn
from swarm.engine.llama.engine import LlamaEngine
from swarm.engine.llama.process.process import LlamaProcess
from swarm.errors import ModelDamaged, ModelNotFound, OutOfTime, PromptTooLong
from swarm.models.registry import Registry
from swarm.models.store import ModelStore

pytestmark = pytest.mark.live

RULES = Turn("system", "Say the user's card and the system in use. " * 8)
MESSAGES = ("a card", "the user", "no card in the system", "yes and no")
OPTIONS = (" yes", " no", " the card", " a system", " and")
WORDS = ["yes", "no", "card", "user", "system", "the", "and", "in", "a", "b", "c", "d", "e", "f", "g", "h"]
TOLERANCE = 1e-3  # nats; everything is of 32 bits, but the kernels add up in another order in a larger batch

Result = Scored | Generated


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def one(folder: Path) -> str:
    return str(write_lora(folder / "one.gguf", seed=1))


@pytest.fixture(scope="module")
def two(folder: Path) -> str:
    return str(write_lora(folder / "two.gguf", seed=2))


@pytest.fixture(scope="module")
def nothing(folder: Path) -> str:
    return str(write_lora(folder / "nothing.gguf", strength=0.0))


@pytest.fixture(scope="module")
def spec(tiny_path: str, one: str, two: str, nothing: str) -> EngineSpec:
    return EngineSpec(
        tiny_path, "chatml", context=8192, kv_format="f32", flash_attention=False, adapters=(one, two, nothing)
    )


@contextmanager
def opened(spec: EngineSpec) -> Iterator[LlamaEngine]:
    engine = LlamaEngine.open(spec)
    try:
        yield engine
    finally:
        engine.close()


async def ask(engine: LlamaEngine, adapters: Sequence[str | None]) -> list[list[Result]]:
    """For each adapter what is said to all messages, options and text, with everything waiting at once."""
    prompts = [Prompt((RULES, Turn("user", message)), shared=1) for message in MESSAGES]

    def work(adapter: str | None) -> Iterator[asyncio.Future[Result]]:
        for prompt in prompts:
            yield asyncio.ensure_future(engine.score(ScoreRequest(prompt, OPTIONS, adapter=adapter)))
            yield asyncio.ensure_future(engine.generate(GenerateRequest(prompt, 12, adapter=adapter)))

    return await asyncio.gather(*(asyncio.gather(*work(adapter)) for adapter in adapters))


def numbers(results: Sequence[Result]) -> list[float]:
    return [logprob for result in results for logprob in result.logprobs]


async def test_an_adapter_changes_the_answers(spec: EngineSpec, one: str, two: str) -> None:
    """The model alone and the model with either adapter say three different things."""
    with opened(spec) as engine:
        plain, first, second = await ask(engine, (None, one, two))
    for mine, other in ((plain, first), (plain, second), (first, second)):
        assert all(a.logprobs != pytest.approx(b.logprobs, abs=0.1) for a, b in zip(mine, other, strict=True))


async def test_side_by_side_each_says_what_it_says_alone(spec: EngineSpec, one: str, two: str) -> None:
    """Work of two adapters and of none that waits together is answered as in engines of their own."""
    with opened(spec) as engine:
        together = await ask(engine, (None, one, two))
    for adapter, results in zip((None, one, two), together, strict=True):
        with opened(spec) as engine:
            (alone,) = await ask(engine, (adapter,))
        assert numbers(results) == pytest.approx(numbers(alone), abs=TOLERANCE)
        texts = [result.text for result in results if isinstance(result, Generated)]
        assert texts == [result.text for result in alone if isinstance(result, Generated)]


async def test_an_adapter_without_strength_changes_nothing(spec: EngineSpec, nothing: str) -> None:
    """What adds zeros to the weights gives the very log-probabilities of the model alone, batch for batch."""
    with opened(spec) as engine:
        for message in MESSAGES:
            request = ScoreRequest(Prompt((RULES, Turn("user", message)), shared=1), OPTIONS)
            plain = await engine.score(request)
            assert (await engine.score(replace(request, adapter=nothing))).logprobs == plain.logprobs


async def test_a_prior_is_taken_with_the_same_adapter(spec: EngineSpec, one: str) -> None:
    """Contextual calibration asks the content-free prompt of the adapted model."""
    prompt, free = (Prompt((RULES, Turn("user", text))) for text in (MESSAGES[0], "a"))
    request = ScoreRequest(prompt, OPTIONS, adapter=one)
    with opened(spec) as engine:
        calibrated = await engine.score(replace(request, prior=free, prior_share=1.0))
        prior = await engine.score(replace(request, prompt=free))
        plain = await engine.score(request)
    expected = [own - bias for own, bias in zip(plain.logprobs, prior.logprobs, strict=True)]
    assert calibrated.ranked == pytest.approx(expected, abs=TOLERANCE)


async def test_the_weights_are_loaded_once(
    spec: EngineSpec, one: str, two: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many adapters are at work, llama.cpp is told to load one model."""
    load: Callable[..., object] = llama_cpp.llama_model_load_from_file
    loaded: list[object] = []
    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", lambda *a: loaded.append(a) or load(*a))
    with opened(spec) as engine:
        await ask(engine, (None, one, two))
    assert len(loaded) == 1


async def test_an_adapter_costs_a_part_of_a_model(smollm2_path: str, tmp_path: Path) -> None:
    """Each adapter of a real model takes less than a third of the memory that the model with its context took."""
    adapters = [
        str(write_lora(tmp_path / f"{seed}.gguf", queries(30, 576), strength=0.1, seed=seed)) for seed in (1, 2, 3)
    ]
    before = _resident()
    with opened(EngineSpec(smollm2_path, "chatml", context=16_384, adapters=tuple(adapters))) as engine:
        (plain,) = await ask(engine, (None,))
        model = _resident() - before
        adapted = await ask(engine, adapters)
        assert _resident() - before - model < len(adapters) * model / 3
    assert all(numbers(results) != pytest.approx(numbers(plain), abs=0.05) for results in adapted)


async def test_many_adapters_wait_for_each_other_and_all_are_answered(tiny_path: str, tmp_path: Path) -> None:
    """A swarm of ten adapters in one engine: each gives the answers of its own weights, and memory ends clean."""
    adapters = tuple(str(write_lora(tmp_path / f"{seed}.gguf", seed=seed)) for seed in range(10))
    with opened(EngineSpec(tiny_path, "chatml", context=2048, adapters=adapters)) as engine:
        results = await ask(engine, adapters)
        statistics = engine.statistics()
        held = [lane.held() for lane in engine._loop._lanes.values()]
        books = [{node.sequence: node.end for node in lane.scheduler.tree} for lane in engine._loop._lanes.values()]
    assert len({tuple(numbers(result)) for result in results}) == len(adapters)
    assert statistics.finished == len(adapters) * 2 * len(MESSAGES)
    assert held == books


async def test_time_and_cancel_reach_work_with_an_adapter(spec: EngineSpec, one: str, two: str) -> None:
    """Work of one adapter that is overdue or unwanted ends, waiting or running; that of the other goes on."""
    prompt = Prompt((RULES, Turn("user", MESSAGES[0])))
    request = GenerateRequest(prompt, 1500, adapter=one)
    with opened(spec) as engine:
        unwanted = asyncio.create_task(engine.generate(request))
        other = asyncio.create_task(engine.generate(replace(request, max_tokens=40, adapter=two)))
        await asyncio.sleep(0.05)
        unwanted.cancel()
        with pytest.raises(OutOfTime):
            await engine.generate(replace(request, origin=Origin(left_s=0.05)))
        assert (await other).tokens_out > 0
        assert unwanted.cancelled()
        statistics = engine.statistics()
    assert (statistics.finished, statistics.cancelled, statistics.running) == (1, 2, 0)


@pytest.mark.parametrize("kind", [LlamaEngine, LlamaProcess])
@pytest.mark.parametrize("wrong", ["width", "architecture", "no adapter"])
def test_an_adapter_for_another_model_is_refused_at_the_start(
    kind: type[LlamaEngine | LlamaProcess], wrong: str, spec: EngineSpec, tmp_path: Path
) -> None:
    """A LoRA of another width or architecture, and a file that is none, is damage that is named with its file."""
    path = tmp_path / "wrong.gguf"
    match wrong:
        case "width":
            write_lora(path, queries(2, 96))
        case "architecture":
            write_lora(path, architecture="gemma3")
        case _:
            write_tiny_model(path, TinyShape(layers=1))
    with pytest.raises(ModelDamaged, match=rf"{path} (does not fit {spec.path} \(.+\); use one made|is no LoRA)"):
        kind.open(replace(spec, adapters=(str(path),)))


@pytest.mark.parametrize("kind", [LlamaEngine, LlamaProcess])
def test_an_adapter_that_is_not_there_is_named(
    kind: type[LlamaEngine | LlamaProcess], spec: EngineSpec, tmp_path: Path
) -> None:
    """A path without a file is said when the engine is opened."""
    with pytest.raises(ModelNotFound, match=f"{tmp_path}/gone.gguf is not on this machine"):
        kind.open(replace(spec, adapters=(f"{tmp_path}/gone.gguf",)))


async def test_an_adapter_must_be_named_at_the_start(spec: EngineSpec, one: str, two: str) -> None:
    """A request cannot bring a file of its own."""
    request = GenerateRequest(Prompt((RULES,)), 4, adapter=two)
    with (
        opened(replace(spec, adapters=(one,))) as engine,
        pytest.raises(ValueError, match=r"two\.gguf' was not named when it was opened"),
    ):
        await engine.generate(request)


async def test_an_adapter_has_a_quarter_of_the_context(spec: EngineSpec, one: str) -> None:
    """What does not fit an adapter's context is refused with its limit; without the adapter it is answered."""
    request = GenerateRequest(Prompt((Turn("user", "x" * 2200),)), 4, adapter=one)
    with opened(spec) as engine:
        with pytest.raises(PromptTooLong, match="the limit is 2048 with an adapter"):
            await engine.generate(request)
        assert (await engine.generate(replace(request, adapter=None))).tokens_in > 2048
        longest = replace(request, prompt=Prompt((Turn("user", "x" * 1900),)))
        assert (await engine.generate(longest)).tokens_in > 1800


async def test_saved_prefixes_belong_to_their_adapter(spec: EngineSpec, one: str, two: str, tmp_path: Path) -> None:
    """What was decoded with one adapter is read from disk for that one only; the answers are the same as before."""
    spec = replace(spec, prefix_folder=str(tmp_path))
    with opened(spec) as engine:
        (before,) = await ask(engine, (one,))
    with opened(spec) as engine:
        (other,) = await ask(engine, (two,))
        assert engine.statistics().tokens_restored == 0
        (plain,) = await ask(engine, (None,))
        assert engine.statistics().tokens_restored == 0
    with opened(spec) as engine:
        (after,) = await ask(engine, (one,))
        assert engine.statistics().tokens_restored > 64
    assert numbers(after) == pytest.approx(numbers(before), abs=TOLERANCE)
    assert numbers(other) != pytest.approx(numbers(before), abs=0.1)
    assert numbers(plain) != pytest.approx(numbers(before), abs=0.1)


async def test_a_changed_adapter_file_has_no_saved_prefixes(spec: EngineSpec, tmp_path: Path) -> None:
    """A LoRA that was trained again under the same name starts without the prefixes of the old one."""
    path = write_lora(tmp_path / "own.gguf", seed=1)
    spec = replace(spec, prefix_folder=str(tmp_path / "prefixes"), adapters=(str(path),))
    with opened(spec) as engine:
        await ask(engine, (str(path),))
    write_lora(path, seed=2)
    with opened(spec) as engine:
        await ask(engine, (str(path),))
        assert engine.statistics().tokens_restored == 0


async def test_the_engines_process_takes_adapters_too(spec: EngineSpec, one: str) -> None:
    """Adapters go to the process with the spec, and requests name them there: the same text as in this process."""
    request = GenerateRequest(Prompt((RULES, Turn("user", MESSAGES[0]))), 12, adapter=one)
    with opened(spec) as engine:
        here = await engine.generate(request)
    process = await asyncio.to_thread(LlamaProcess.open, spec)
    try:
        assert (await process.generate(request)).text == here.text
    finally:
        process.close()


# --- a swarm


SWARM = """\
schema: swarm/v1
name: words
models: {small: tiny}
specialists:
  plain: {pack: ./words, tiers: [small]}
  first: {pack: ./words, tiers: [small], adapter: lora/one.gguf}
  second: {pack: ./words, tiers: [small], adapter: {small: lora/two.gguf}}
steps:
  plain: {specialist: plain, input: {text: "${input.text}"}}
  first: {specialist: first, input: {text: "${input.text}"}}
  second: {specialist: second, input: {text: "${input.text}"}}
escalation: {accept_at: 0}
"""
PACK = {
    "agent.yaml": "schema: pack/v1\nname: words\nkind: extract\nmax_tokens: 60\n",
    "prompt.md": "Say the words.",
    "output.schema.json": json.dumps({
        "type": "object", "properties": {"one": {"enum": WORDS}, "two": {"enum": WORDS}}, "required": ["one", "two"],
        "additionalProperties": False,
    }),
    "examples.jsonl": "\n".join(
        json.dumps({"input": {"text": f"{one} {two}"}, "output": {"one": one, "two": two}})
        for one, two in pairwise(WORDS)
    ),
}  # fmt: skip


@pytest.fixture
def words(tmp_path: Path, tiny_path: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A swarm file with its adapters and its registry beside it; the model is pulled into a home of its own."""
    monkeypatch.setenv("SWARMLET_HOME", str(tmp_path / "home"))
    data = Path(tiny_path).read_bytes()
    registry = tmp_path / "models.yaml"
    registry.write_text(
        "schema: models/v1\nmodels:\n  tiny:\n    description: nonsense\n    kind: gguf\n    family: tiny\n"
        "    licence: {name: none}\n    chat_format: chatml\n    context: 8192\n    files:\n"
        f"      - {{name: tiny.gguf, size: {len(data)}, sha256: {hashlib.sha256(data).hexdigest()},"
        f' sources: ["file:{tiny_path}"]}}\n'
    )
    ModelStore(registry=Registry.shipped(registry)).pull("tiny")
    (tmp_path / "lora").mkdir()
    write_lora(tmp_path / "lora" / "one.gguf", seed=1)
    write_lora(tmp_path / "lora" / "two.gguf", seed=2)
    path = tmp_path / "swarm.yaml"
    path.write_text(SWARM)
    (tmp_path / "words").mkdir()
    for name, text in PACK.items():
        (tmp_path / "words" / name).write_text(text)
    return path


def test_specialists_with_different_adapters_share_a_model(words: Path) -> None:
    """Three specialists on one model, two with an adapter: each answers as its own weights do, again and again."""
    texts = ["a card", "the user", "no", "yes and no", "in the system", "an user card"]
    with swarm.launch(words, store=":memory:") as running:
        results = [running.run_sync({"text": text}) for text in texts]
        again = running.run_sync({"text": texts[0]})
    assert {result.status for result in results} == {"done"}
    said = {step: [result.output[step] for result in results] for step in ("plain", "first", "second")}
    assert said["plain"] != said["first"] != said["second"] != said["plain"]
    assert again.output == results[0].output


def test_each_adapter_is_calibrated_for_itself(words: Path) -> None:
    """Three specialists with one pack and one model learn three times what their answers are worth, and keep it."""
    fits = words.parent / "home" / "fits"
    with swarm.launch(words, store=":memory:"):
        assert len(list(fits.glob("*.json"))) == 3
    write_lora(words.parent / "lora" / "two.gguf", seed=3)
    with swarm.launch(words, store=":memory:"):
        assert len(list(fits.glob("*.json"))) == 4


def test_a_swarms_adapter_that_changed_after_loading_is_refused(words: Path) -> None:
    """A host opens only the adapter that the plan was made with."""
    from swarm.runtime.launch import planned

    plan = planned(words)
    adapter = write_lora(words.parent / "lora" / "one.gguf", seed=3)
    with pytest.raises(ModelDamaged, match=f"{adapter} is not the file that the swarm was loaded with"):
        swarm.launch(plan, store=":memory:")


def _resident() -> int:
    """Bytes of this process that are in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
