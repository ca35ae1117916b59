"""The process of one engine: `python -m swarm.engine.llama.process.worker`, started by `LlamaProcess`.

Messages come in by what was stdin and go out by what was stdout. It ends when it is told to, when the other end of the
pipe is closed, and, on Linux, when the thread that started it is gone.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Serve one engine until the input ends; never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    _die_with_parent()
    inbox, outbox = _private_pipes()
    from swarm.engine.llama.process.service import Service  # takes most of the time until the model can be loaded

    async def serve() -> None:
        await Service(inbox, outbox).run()

    asyncio.run(serve())


def _die_with_parent() -> None:
    """The end of the input tells too, but not while somebody else holds the other end of the pipe open."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _private_pipes() -> tuple[int, int]:
    """Descriptors for what was stdin and stdout, which from now on are nothing and stderr.

    Whatever prints, native code included, cannot get into the stream of messages.
    """
    inbox, outbox = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return inbox, outbox


if __name__ == "__main__":
    main()
