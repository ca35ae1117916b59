"""A child process as its parent sees it: frames in, frames out, what it said on stderr, how it ended."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

import structlog

from protocols.engine import Frames
from swarm.engine.llama.environment import child_environment

log = structlog.get_logger(__name__)

_READ_BYTES = 1 << 18
_LINE_BYTES = 400
_KILL_WAIT_S = 10.0


class ChildEnded(Exception):
    """The child has closed its side of the pipe."""


class Child:
    """A process and the pipes to it. One thread makes it, polls it and ends it; any thread may `send` and `wake`.

    On Linux a child may ask to be killed when the *thread* that made it ends: that thread has to outlive it.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        """Start `python arguments`. Raises `OSError`."""
        # On an abort ggml would start a debugger and wait for it.
        environment = {**child_environment(), "GGML_NO_BACKTRACE": "1"}
        command = [sys.executable, "-P", *arguments]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._pipes = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._in, self._out, self._err = (file.fileno() for file in self._pipes)
        self._woken, self._waker = os.pipe()
        for descriptor in (self._in, self._out, self._err, self._woken, self._waker):
            os.set_blocking(descriptor, False)
        self._selector = selectors.DefaultSelector()
        for descriptor in (self._out, self._err, self._woken):
            self._selector.register(descriptor, selectors.EVENT_READ)
        self._sending = threading.Lock()
        self._unsent = bytearray()
        self._ended = False
        self._frames = Frames()
        self._line = b""
        self._last_line = ""

    @property
    def pid(self) -> int:
        """Its process number, also after its end."""
        return self._process.pid

    def send(self, data: bytes) -> None:
        """Never waits: what the pipe does not take now is written by `poll`. Goes nowhere once the child has ended."""
        with self._sending:
            if self._ended:
                return
            if not self._unsent:
                data = data[self._written(data) :]
            if data:
                self._unsent += data
                self._wake()

    def wake(self) -> None:
        """Make a `poll` that waits return."""
        with self._sending:
            if not self._ended:
                self._wake()

    def poll(self, timeout_s: float) -> list[bytes]:
        """Bodies of the frames that have come, after at most `timeout_s`. Raises `ChildEnded`, `FrameError`."""
        self._watch_unsent()
        bodies: list[bytes] = []
        for key, _ in self._selector.select(timeout_s):
            if key.fd == self._err:
                self._hear()
            elif key.fd == self._woken:
                os.read(self._woken, _READ_BYTES)
            elif key.fd == self._out:
                data = os.read(self._out, _READ_BYTES)
                if not data:
                    raise ChildEnded
                bodies = self._frames.feed(data)
        return bodies

    def end(self) -> str:
        """Kill it if it lives, free the pipes; returns how it ended and the last line it wrote to stderr."""
        with self._sending:
            self._ended = True
        self._process.kill()
        try:
            self._process.wait(_KILL_WAIT_S)
        except subprocess.TimeoutExpired:
            log.error("child.unkillable", pid=self.pid)  # waits for a dead disk, for example
        self._hear()
        self._selector.close()
        for file in self._pipes:
            file.close()
        os.close(self._woken)
        os.close(self._waker)
        return _ending(self._process.returncode) + (f"; its last words: {self._last_line}" if self._last_line else "")

    @property
    def signal(self) -> int | None:
        """The signal that ended it, once it has been ended."""
        code = self._process.returncode
        return -code if code is not None and code < 0 else None

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # the pipe is full of wake-ups
            os.write(self._waker, b"!")

    def _written(self, data: bytes | bytearray) -> int:
        """How many bytes the pipe took. To a child that is gone everything can be written: `poll` finds out."""
        try:
            return os.write(self._in, data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def _watch_unsent(self) -> None:
        """Write what can be written; wait for the pipe to take more only while there is more."""
        with self._sending:
            if self._unsent:
                del self._unsent[: self._written(self._unsent)]
            watched = self._in in self._selector.get_map()
            if self._unsent and not watched:
                self._selector.register(self._in, selectors.EVENT_WRITE)
            elif watched and not self._unsent:
                self._selector.unregister(self._in)

    def _hear(self) -> None:
        """Take in what was written to stderr."""
        with suppress(BlockingIOError):
            while data := os.read(self._err, _READ_BYTES):
                *lines, rest = (self._line + data).split(b"\n")
                self._line = rest[-_LINE_BYTES:]
                self._keep(lines)
            with suppress(KeyError):  # nothing more will come
                self._selector.unregister(self._err)
            self._keep([self._line])
            self._line = b""

    def _keep(self, lines: list[bytes]) -> None:
        for line in lines:
            if text := line[-_LINE_BYTES:].decode(errors="replace").strip():
                self._last_line = text
                log.debug("child.said", pid=self.pid, line=text)


def _ending(code: int | None) -> str:
    if code is None:
        return "it could not be ended"
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}"
    return f"it ended with exit code {code}"
