"""One process of an engine, from its start to its end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

from protocols.engine import (
    CloseEngine,
    FrameError,
    FromEngine,
    Opened,
    Refused,
    Statistics,
    ToEngine,
    frame,
    read_from_engine,
)
from protocols.work import EngineSpec
from swarm.engine.llama.process.child import Child, ChildEnded
from swarm.engine.llama.process.refusals import error_of
from swarm.errors import EngineError, ModelDamaged, ModelError

_WORKER = "swarm.engine.llama.process.worker"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an engine's process may take before it is given up, and how often it is started again."""

    load_s: float = 60.0
    load_bytes_s: float = 20e6  # on top of it, for slow disks
    step_s: float = 300.0  # without a step or an answer while there is work
    close_s: float = 5.0
    glance_s: float = 1.0  # between two looks at the clock
    restarts: int = 3  # at most, in `window_s`
    window_s: float = 60.0


class Life:
    """A child that loads the model of `spec` and then works. One thread makes it, reads it and ends it."""

    def __init__(self, spec: EngineSpec, first: bytes, patience: Patience) -> None:
        """`first` is the frame that opens the engine. Raises `OSError` when no process can be started."""
        self.opened = False
        self.closing = False
        self.busy = False  # there is work that it has not answered
        self._path = spec.path
        self._patience = patience
        self._load_s = patience.load_s + _size(spec) / patience.load_bytes_s
        self._since = time.monotonic()  # when something was last done
        self._steps = 0
        self._cause = ""  # why it is being ended, if it did not end by itself
        self._refusal: Exception | None = None
        self._child = Child(["-m", _WORKER, spec.path])
        self.send(first)

    @property
    def pid(self) -> int:
        """The child's process number, also after its end."""
        return self._child.pid

    def send(self, message: ToEngine | bytes) -> None:
        """Thread-safe, never waits. Bytes are a frame."""
        self._child.send(message if isinstance(message, bytes) else frame(message))

    def close(self) -> None:
        """Ask it to end. Thread-safe."""
        self.touch()
        self.closing = True
        self.send(CloseEngine())
        self._child.wake()

    def touch(self) -> None:
        """Something was done, or there is something to do for the first time: patience begins anew."""
        self._since = time.monotonic()

    def messages(self) -> Iterator[FromEngine]:
        """What it says, until it ends or has to be ended."""
        while not self._cause:
            try:
                for body in self._child.poll(self._patience.glance_s):
                    message = read_from_engine(body)
                    self._note(message)
                    yield message
            except ChildEnded:
                return
            except FrameError as error:
                self._cause = f"it sent something that is no message ({error})"
            if (limit_s := self._limit_s()) is not None and time.monotonic() - self._since > limit_s:
                self._cause = (
                    f"it did not {'finish a step' if self.opened else 'load the model'} within {limit_s:.0f} s"
                )

    def end(self) -> tuple[str, Exception]:
        """End it and free everything: why it ended, and the error for whoever wanted to open this model."""
        ending = self._child.end()
        if self._refusal is not None:
            return str(self._refusal), self._refusal
        cause = self._cause or ending
        return cause, self._loading_error(cause)

    def _note(self, message: FromEngine) -> None:
        match message:
            case Opened():
                self.opened = True
            case Refused(id=None):
                self._refusal = error_of(message)
            case Statistics(statistics) if statistics.steps == self._steps:
                return
            case Statistics(statistics):
                self._steps = statistics.steps
            case _:
                pass
        self.touch()

    def _limit_s(self) -> float | None:
        if self.closing:
            return self._patience.close_s
        if not self.opened:
            return self._load_s
        return self._patience.step_s if self.busy else None

    def _loading_error(self, cause: str) -> Exception:
        """`cause` for people who wanted to open the model."""
        number = self._child.signal
        if self._cause:
            return ModelError(f"model file {self._path} cannot be loaded: {cause}; check the disk and the file")
        if number == signal.SIGKILL:
            return ModelError(
                f"model file {self._path} cannot be loaded: its process was killed, most likely for lack of memory; "
                "lower `context` or choose a smaller model"
            )
        if number is not None:
            return ModelDamaged(
                f"model file {self._path} cannot be loaded: llama.cpp crashed ({cause}); delete it and pull it again"
            )
        return EngineError(f"the engine's process for {self._path} did not start ({cause}); check the installation")


def _size(spec: EngineSpec) -> int:
    return sum(os.path.getsize(path) for path in (spec.path, *spec.adapters) if os.path.exists(path))
