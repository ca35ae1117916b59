"""The engine in a process of its own: the same answers, and the host lives whatever happens to it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from tiny_gguf import write_tiny_model

from swarm.engine.base import EngineSpec, GenerateRequest, Origin, Prompt, ScoreRequest, Turn
from swarm.engine.llama.engine import LlamaEngine
from swarm.engine.llama.process.life import Patience
from swarm.engine.llama.process.process import LlamaProcess
from swarm.errors import (
    EngineClosed,
    EngineCrashed,
    EngineError,
    ModelDamaged,
    ModelError,
    OutOfTime,
    PromptTooLong,
    SchemaUnsupported,
)

pytestmark = pytest.mark.live

FIELDS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


def said(text: str) -> Prompt:
    return Prompt((Turn("system", "You help."), Turn("user", text)), shared=1)


SCORE = ScoreRequest(said("Which card?"), (" yes", " no", " none"))
LONG = GenerateRequest(said("Count."), 4000)


@pytest.fixture(scope="module")
def spec(tiny_path: str) -> EngineSpec:
    return EngineSpec(tiny_path, "chatml", context=8192)


@pytest.fixture
def engine(spec: EngineSpec) -> Iterator[LlamaProcess]:
    with opened(spec) as one:
        yield one


@contextmanager
def opened(spec: EngineSpec, patience: Patience | None = None) -> Iterator[LlamaProcess]:
    engine = LlamaProcess.open(spec, patience)
    try:
        yield engine
    finally:
        engine.close()


def pid_of(engine: LlamaProcess) -> int:
    life = engine._keeper._life
    assert life is not None
    return life.pid


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.01)


def ended(pid: int) -> bool:
    """No such process, or one that only waits for its parent to take note."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


async def started(engine: LlamaProcess, request: GenerateRequest = LONG) -> asyncio.Task[object]:
    """Work that the process is in the middle of."""
    before = engine.statistics().steps
    task: asyncio.Task[object] = asyncio.create_task(engine.generate(request))
    await until(lambda: engine.statistics().steps > before + 3)
    return task


async def test_its_answers_are_those_of_an_engine_in_this_process(spec: EngineSpec, engine: LlamaProcess) -> None:
    """Scores, texts, candidates, counts and refusals are the same on both sides of the pipe."""
    here = LlamaEngine.open(spec)
    try:
        texts = [
            GenerateRequest(said("Hello."), 24),
            GenerateRequest(said("é€😀\n<|im_end|>"), 48, schema=FIELDS),
            GenerateRequest(said("A number?"), 8, regex="[0-9]{3}", temperature=1.0, seed=3),
        ]
        for request in texts:
            assert (await engine.generate(request)).text == (await here.generate(request)).text
        drawn, expected = await engine.candidates(texts[2], 3), await here.candidates(texts[2], 3)
        assert [one.text for one in drawn] == [one.text for one in expected]
        for one, other in zip(drawn, expected, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=0.02)  # rounding depends on who shares the batch
        assert (await engine.score(SCORE)).logprobs == pytest.approx((await here.score(SCORE)).logprobs, abs=1e-3)
        assert engine.count("a card <|im_end|>") == here.count("a card <|im_end|>")
        for one in (here, engine):
            with pytest.raises(PromptTooLong, match="limit is"):
                await one.score(ScoreRequest(said("x" * 100_000), (" a",)))
            with pytest.raises(SchemaUnsupported, match="uniqueItems"):
                await one.generate(GenerateRequest(said("?"), 8, schema={"type": "array", "uniqueItems": True}))
            with pytest.raises(ValueError, match="no options"):
                await one.score(ScoreRequest(said("?"), ()))
    finally:
        here.close()


async def test_statistics_come_with_the_answers(engine: LlamaProcess) -> None:
    """What was just answered is counted; what is being worked on shows within a fraction of a second."""
    before = engine.statistics()
    await engine.score(SCORE)
    assert engine.statistics().finished == before.finished + 1
    task = await started(engine)
    assert engine.statistics().running == 1
    task.cancel()


async def test_cancelling_reaches_the_process(engine: LlamaProcess) -> None:
    """Work that nobody waits for any longer is dropped there, whether it was running, waiting or just being sent."""
    await engine.score(SCORE)
    before = engine.statistics()
    tasks = [await started(engine), asyncio.create_task(engine.generate(LONG))]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    assert all(isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*tasks, return_exceptions=True))
    await until(lambda: engine.statistics().running == engine.statistics().waiting == 0)
    assert engine.statistics().finished == before.finished
    assert (await engine.score(SCORE)).best in (0, 1, 2)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
async def test_a_crash_fails_the_work_and_the_next_is_done(engine: LlamaProcess, number: signal.Signals) -> None:
    """Outstanding work ends with `EngineCrashed` that names the signal; a new process answers what comes then."""
    expected = await engine.score(SCORE)
    tasks = [
        await started(engine),
        asyncio.create_task(engine.generate(LONG)),
        asyncio.create_task(engine.score(SCORE)),
    ]
    finished = engine.statistics().finished
    os.kill(pid_of(engine), number)
    outcomes = await asyncio.gather(*tasks[:2], return_exceptions=True)
    assert all(isinstance(one, EngineCrashed) and number.name in str(one) for one in outcomes)
    await asyncio.wait(tasks[2:])
    assert (await engine.score(SCORE)).logprobs == pytest.approx(expected.logprobs, abs=1e-3)
    assert engine.statistics().restarts == 1
    assert engine.statistics().finished > finished, "counters go on over a restart"


async def test_a_model_that_keeps_crashing_is_left_alone_for_a_while(spec: EngineSpec) -> None:
    """Beyond the restarts that are allowed in a time everything is `EngineCrashed` at once, until the time is over."""
    with opened(spec, Patience(restarts=2, window_s=4.0)) as engine:
        for _ in range(3):
            task = await started(engine)
            os.kill(pid_of(engine), signal.SIGKILL)
            with pytest.raises(EngineCrashed):
                await task
        with pytest.raises(EngineCrashed, match=r"crashed 3 times in 4 s.*SIGKILL"):
            await engine.score(SCORE)
        assert engine.statistics().restarts == 2
        await until(lambda: engine.statistics().restarts == 3)
        assert (await engine.score(SCORE)).best in (0, 1, 2)


async def test_a_file_that_went_bad_is_told_when_it_is_needed_again(spec: EngineSpec, tmp_path: Path) -> None:
    """When the model cannot be loaded again after a crash, work ends with `EngineCrashed` and that cause."""
    path = write_tiny_model(tmp_path / "m.gguf")
    with opened(msgspec.structs.replace(spec, path=str(path)), Patience(restarts=1)) as engine:
        (tmp_path / "bad").write_bytes(b"GGUF" + bytes(100))
        os.replace(tmp_path / "bad", path)
        os.kill(pid_of(engine), signal.SIGKILL)
        await until(lambda: engine.statistics().restarts == 1 and engine._keeper._crashed is not None)
        with pytest.raises(EngineCrashed, match=r"because model file .*m\.gguf cannot be loaded"):
            await engine.score(SCORE)


async def test_closing_ends_the_process_and_the_work(spec: EngineSpec) -> None:
    """After `close` there is no process; unfinished work has ended with `EngineClosed`, and later work does too."""
    engine = LlamaProcess.open(spec)
    task, pid = await started(engine), pid_of(engine)
    engine.close()
    engine.close()
    assert ended(pid)
    with pytest.raises(EngineClosed):
        await task
    with pytest.raises(EngineClosed):
        await engine.score(SCORE)
    with pytest.raises(EngineClosed):
        engine.count("text")


PARENT = """
import os, sys, time
from swarm.engine.base import EngineSpec
from swarm.engine.llama.process.process import LlamaProcess

if __name__ == "__main__":
    engine = LlamaProcess.open(EngineSpec(sys.argv[1], "chatml"))
    holder = os.fork() if sys.argv[2] == "forked" else 0
    if holder or sys.argv[2] != "forked":
        print(engine._keeper._life.pid, holder, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("way", ["alone", "forked"])
def test_the_process_ends_with_its_host(spec: EngineSpec, tmp_path: Path, way: str) -> None:
    """A host that is killed leaves no engine behind, not even when a fork of it holds the pipe open."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    host = subprocess.Popen([sys.executable, script, spec.path, way], stdout=subprocess.PIPE, env=environment)
    holder = 0
    try:
        assert host.stdout
        pid, holder = map(int, host.stdout.readline().split())
        assert not ended(pid)
        host.kill()
        host.wait()
        asyncio.run(until(lambda: ended(pid)))
    finally:
        host.kill()
        host.wait()
        if holder:
            os.kill(holder, signal.SIGKILL)


async def test_an_interrupt_of_the_terminal_does_not_end_it(engine: LlamaProcess) -> None:
    """Ctrl-C reaches the whole group; the process leaves it to the host to end."""
    task = await started(engine)
    os.kill(pid_of(engine), signal.SIGINT)
    await asyncio.sleep(0.2)
    assert engine.statistics().restarts == 0 and not task.done()
    task.cancel()


async def test_a_process_that_hangs_is_ended(spec: EngineSpec) -> None:
    """Without a step for too long while there is work, the process is replaced and the work is `EngineCrashed`."""
    with opened(spec, Patience(step_s=1.0, glance_s=0.1)) as engine:
        pid = pid_of(engine)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(EngineCrashed, match="did not finish a step within 1 s"):
            await engine.score(SCORE)
        assert ended(pid)
        assert (await engine.score(SCORE)).best in (0, 1, 2)


async def test_time_runs_out_even_when_the_process_hangs(engine: LlamaProcess) -> None:
    """`left_s` ends a request although its engine says nothing, and no send ever waits for a full pipe."""
    pid = pid_of(engine)
    os.kill(pid, signal.SIGSTOP)
    short = msgspec.structs.replace(SCORE, prompt=said("x" * 100_000), origin=Origin(left_s=0.1))
    outcomes = await asyncio.gather(*(engine.score(short) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(one, OutOfTime) for one in outcomes)
    os.kill(pid, signal.SIGCONT)
    assert (await engine.score(SCORE)).best in (0, 1, 2)


def test_many_event_loops_share_one_process(engine: LlamaProcess) -> None:
    """Four threads with an event loop each ask at once; everyone gets their own answers."""
    outcomes: dict[int, list[float]] = {}

    async def ask(number: int) -> None:
        requests = [ScoreRequest(said(f"Thread {number}, {index}."), (" yes", " no")) for index in range(20)]
        scored = await asyncio.gather(*map(engine.score, requests))
        again = await asyncio.gather(*map(engine.score, requests[:3]))
        assert [one.logprobs for one in again] == [pytest.approx(one.logprobs, abs=0.05) for one in scored[:3]]
        outcomes[number] = [one.logprobs[0] for one in scored]

    threads = [threading.Thread(target=lambda n=n: asyncio.run(ask(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({value for values in outcomes.values() for value in values}) > 60


async def test_large_requests_pass_and_too_large_ones_are_refused(engine: LlamaProcess) -> None:
    """Requests larger than the pipe's buffer get through; one above the limit of a frame is never sent."""
    options = tuple(f" {number:05} " + "card" * 20 for number in range(2000))
    assert len((await engine.score(ScoreRequest(said("?"), options))).logprobs) == 2000
    with pytest.raises(PromptTooLong, match="over the limit of 33,554,432"):
        await engine.score(ScoreRequest(said("x" * 40_000_000), (" a",)))
    with pytest.raises(ValueError, match="cannot be written"):
        await engine.score(ScoreRequest(said("\ud800"), (" a",)))


@pytest.mark.parametrize(
    ("wrong", "error", "named"),
    [
        ({"threads": 0}, ValueError, "threads is 0"),
        ({"chat_format": "gemma"}, ModelError, "start_of_turn"),
        ({"chat_format": "chatlm"}, ModelError, "chatml"),
    ],
)
def test_a_spec_that_no_engine_could_have_is_refused(
    spec: EngineSpec, wrong: dict[str, object], error: type[Exception], named: str
) -> None:
    """What the engine refuses on opening is the same error as in this process."""
    with pytest.raises(error, match=named):
        LlamaProcess.open(msgspec.structs.replace(spec, **wrong))


NOISE = """
for descriptor in range(3, 30):
    try:
        os.write(descriptor, b"noise " * 99)
    except OSError:
        pass
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("code", "error", "match"),
    [
        (NOISE, ModelError, "no message"),
        ("os.write(1, b'stray words\\n'); os.kill(os.getpid(), signal.SIGSEGV)", ModelDamaged, "SIGSEGV.*stray words"),
        ("os.kill(os.getpid(), signal.SIGKILL)", ModelError, "lack of memory"),
        ("time.sleep(60)", ModelError, "did not load the model within"),
        ("raise ImportError('no such library')", EngineError, "no such library"),
    ],
    ids=["noise", "crash", "killed", "hangs", "missing"],
)
def test_whatever_the_library_does_while_loading_is_a_typed_error(
    spec: EngineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, error: type[Exception], match: str
) -> None:
    """Noise in the pipe, stray prints, crashes, kills, hangs and a broken installation are told apart and named."""
    (tmp_path / "llama_cpp.py").write_text(f"import os, signal, time\n{code}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(error, match=match):
        LlamaProcess.open(spec, Patience(load_s=2.0, glance_s=0.1))
