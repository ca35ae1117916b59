"""One setting under measurement: an engine in a process of its own, so that a crash in a kernel costs one row only.

The child reads a line of JSON for each job and answers with a line; it ends when its input does.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from protocols.work import EngineSpec, Generated, GenerateRequest, Scored, ScoreRequest
from swarm.engine.llama.environment import child_environment
from swarm.errors import EngineCrashed, EngineError, OutOfTime, SwarmError

if TYPE_CHECKING:
    from swarm.engine.llama.engine import LlamaEngine

NO_TIME = "there was no time left for this; give a larger --budget"
_REASON_CHARS = 200
_PATIENCE_S = 5  # for a child that was told to end


class Job(msgspec.Struct, frozen=True):
    """Requests to be done all at once. One of the two is empty."""

    score: tuple[ScoreRequest, ...] = ()
    generate: tuple[GenerateRequest, ...] = ()


class Done(msgspec.Struct, frozen=True, tag="done"):
    """`seconds` from the first request to the last answer; `scored` in the order of the job; `written` in tokens."""

    seconds: float
    scored: tuple[Scored, ...] = ()
    written: int = 0


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """`has_gpu`: this build of llama.cpp can put layers on a GPU that is here."""

    has_gpu: bool


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The engine could not be opened, or could not do a job."""

    cause: str


_replies: msgspec.json.Decoder[Done | Opened | Refused] = msgspec.json.Decoder(Done | Opened | Refused)


class Measured:
    """An engine in a child process, from the caller's side."""

    def __init__(self, spec: EngineSpec, until: float) -> None:
        """Open `spec` in a new process before the monotonic time `until`.

        Raises `EngineError` when the engine cannot be opened, `EngineCrashed`, `OutOfTime`.
        """
        self._is_late = False
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            bufsize=0,
        )
        try:
            opened = self._ask(spec, until)
            assert isinstance(opened, Opened)
        except BaseException:
            self.close()
            raise
        self.has_gpu = opened.has_gpu

    def run(self, job: Job, until: float) -> Done:
        """Do the job before the monotonic time `until`.

        Raises `EngineError`, `EngineCrashed`, `OutOfTime`; after the last one always again, as no time is left.
        """
        done = self._ask(job, until)
        assert isinstance(done, Done)
        return done

    def close(self) -> None:
        """End the child, kindly first. May be called twice."""
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.close()
        self._child.terminate()
        try:
            self._child.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
        self._words.close()

    def _ask(self, message: msgspec.Struct, until: float) -> Done | Opened:
        assert self._child.stdin is not None
        if self._is_late:  # the answer to an earlier job may still come
            raise OutOfTime(NO_TIME)
        try:
            _send(self._child.stdin.fileno(), message)
        except BrokenPipeError:
            raise self._crash() from None
        match self._reply(until):
            case Refused(cause):
                raise EngineError(cause)
            case reply:
                return reply

    def _reply(self, until: float) -> Done | Opened | Refused:
        assert self._child.stdout is not None
        output = self._child.stdout.fileno()
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([output], [], [], max(0.0, until - time.monotonic()))[0]:
                self._is_late = True
                raise OutOfTime(NO_TIME)
            read = os.read(output, 1 << 16)
            if not read:
                raise self._crash()
            line += read
        return _replies.decode(line)

    def _crash(self) -> EngineCrashed:
        code = self._child.wait()
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").strip().splitlines()
        last = lines[-1][-_REASON_CHARS:] if lines else "nothing was said"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return EngineCrashed(f"it crashed ({how}); its last words: {last}")


def _send(descriptor: int, message: msgspec.Struct) -> None:
    data = msgspec.json.encode(message) + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]


def _serve() -> None:
    """The child: open the engine of the first line, then do a job a line."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    lines = sys.stdin.buffer
    try:
        engine, has_gpu = _open(msgspec.json.decode(lines.readline(), type=EngineSpec))
    except (SwarmError, ValueError) as e:
        return _send(answers, Refused(str(e)))
    _send(answers, Opened(has_gpu))
    _work(engine, lines, answers)
    engine.close()
    return None


def _open(spec: EngineSpec) -> tuple[LlamaEngine, bool]:
    import llama_cpp

    from swarm.engine.llama.engine import LlamaEngine

    return LlamaEngine.open(spec), bool(llama_cpp.llama_supports_gpu_offload())


def _work(engine: LlamaEngine, lines: BinaryIO, answers: int) -> None:
    for line in lines:
        job = msgspec.json.decode(line, type=Job)
        started = time.perf_counter()
        try:
            scored, generated = asyncio.run(_run(engine, job))
        except SwarmError as e:
            _send(answers, Refused(str(e)))
        else:
            written = sum(one.tokens_out for one in generated)
            _send(answers, Done(time.perf_counter() - started, tuple(scored), written))


async def _run(engine: LlamaEngine, job: Job) -> tuple[list[Scored], list[Generated]]:
    scored = await asyncio.gather(*map(engine.score, job.score))
    return scored, await asyncio.gather(*map(engine.generate, job.generate))


if __name__ == "__main__":
    _serve()
