"""What the process of one engine does: messages to an engine in, its results out."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import MutableMapping
from functools import partial
from typing import Any, assert_never

import structlog

from protocols.engine import (
    Candidates,
    CandidatesDone,
    CloseEngine,
    Drop,
    FrameError,
    Frames,
    FromEngine,
    Generate,
    GenerateDone,
    Logged,
    Opened,
    OpenEngine,
    Score,
    ScoreDone,
    Statistics,
    ToEngine,
    frame,
    read_to_engine,
)
from protocols.work import EngineStatistics, GenerateRequest, Prompt, Turn
from swarm.engine.llama.engine import LlamaEngine
from swarm.engine.llama.process.refusals import refusal
from swarm.errors import EngineError, ModelDamaged

_READ_BYTES = 1 << 18
_REPORT_S = 0.2  # between two looks at whether there is something new to report
_FIELD_CHARS = 2000
_WARM_UP = GenerateRequest(Prompt((Turn("user", "a"),)), max_tokens=1)


class Service:
    """Answers messages with one engine. Lives on one event loop."""

    def __init__(self, inbox: int, outbox: int) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._frames = Frames()
        self._loop = asyncio.get_running_loop()
        self._engine: asyncio.Task[LlamaEngine] | None = None
        self._opened: LlamaEngine | None = None
        self._works: dict[int, asyncio.Task[None]] = {}
        self._unsent: list[bytes] = []
        self._reported = EngineStatistics()

    async def run(self) -> None:
        """Never returns: the process ends by `CloseEngine` or at the end of the input."""
        structlog.configure(
            processors=[structlog.processors.add_log_level, structlog.processors.format_exc_info, self._log],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        )
        self._loop.add_reader(self._inbox, self._read)
        while True:
            await asyncio.sleep(_REPORT_S)
            self._flush()

    def _read(self) -> None:
        """Called when there is something to read."""
        data = os.read(self._inbox, _READ_BYTES)
        if not data:
            os._exit(0)  # the host is gone; nothing here is worth tidying up
        try:
            for body in self._frames.feed(data):
                self._take(read_to_engine(body))
        except FrameError as error:
            print(f"the host sent something else than messages: {error}", file=sys.stderr, flush=True)
            os._exit(1)

    def _take(self, message: ToEngine) -> None:
        match message:
            case OpenEngine():
                self._engine = self._loop.create_task(self._open(message))
            case Score(id=id) | Generate(id=id) | Candidates(id=id):
                self._works[id] = work = self._loop.create_task(self._work(message))
                work.add_done_callback(partial(self._forget, id))
            case Drop(id=id):
                if id in self._works:
                    self._works[id].cancel()
            case CloseEngine():
                self._close()
            case _:
                assert_never(message)

    async def _open(self, message: OpenEngine) -> LlamaEngine:
        """Load the model and decode a first token, so that a file that crashes llama.cpp does so now."""
        try:
            engine = await asyncio.to_thread(LlamaEngine.open, message.spec)
            await _warm_up(engine, message.spec.path)
        except Exception as error:
            self._say(refusal(error))
            self._flush()
            os._exit(0)
        self._opened = engine
        self._say(Opened())
        return engine

    async def _work(self, message: Score | Generate | Candidates) -> None:
        assert self._engine is not None, "the first message opens the engine"
        try:
            engine = self._opened
            if engine is None:  # a process that was just started again may be asked before it is ready
                engine = await asyncio.shield(self._engine)
            self._say(await _done(engine, message))
        except Exception as error:
            self._say(refusal(error, message.id))

    def _forget(self, id: int, _: asyncio.Task[None]) -> None:
        del self._works[id]

    def _say(self, message: FromEngine) -> None:
        """Send soon, together with whatever else there is to say by then."""
        data = frame(message)
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(data)

    def _flush(self) -> None:
        """Write what there is to say, new statistics first, so that who gets an answer finds it counted."""
        data = memoryview(b"".join((self._news(), *self._unsent)))
        self._unsent.clear()
        while data:
            data = data[os.write(self._outbox, data) :]

    def _news(self) -> bytes:
        now = self._opened.statistics() if self._opened else self._reported
        if now == self._reported:
            return b""
        self._reported = now
        return frame(Statistics(now))

    def _close(self) -> None:
        if self._opened:
            self._opened.close()
        os._exit(0)

    def _log(self, _: Any, __: str, event: MutableMapping[str, Any]) -> Any:
        """A structlog processor, called in any thread: the host's log is the one that somebody reads."""
        level, said = event.pop("level"), str(event.pop("event"))
        fields = {str(key): str(value)[:_FIELD_CHARS] for key, value in event.items()}
        self._loop.call_soon_threadsafe(self._say, Logged(level, said, fields))
        raise structlog.DropEvent


async def _warm_up(engine: LlamaEngine, path: str) -> None:
    try:
        await engine.generate(_WARM_UP)
    except EngineError as error:
        problem = f"model file {path} was loaded but cannot write a single token ({error}); delete it and pull it again"
        raise ModelDamaged(problem) from error


async def _done(engine: LlamaEngine, message: Score | Generate | Candidates) -> FromEngine:
    match message:
        case Score(id, request):
            return ScoreDone(id, await engine.score(request))
        case Generate(id, request):
            return GenerateDone(id, await engine.generate(request))
        case Candidates(id, request, n):
            return CandidatesDone(id, await engine.candidates(request, n))
        case _:
            assert_never(message)
