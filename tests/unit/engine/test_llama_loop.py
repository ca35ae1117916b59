import asyncio
import threading
import time
from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from swarm.engine.base import Origin, Scored
from swarm.engine.llama.lane import Lane
from swarm.engine.llama.logits import Rows
from swarm.engine.llama.loop import EngineLoop
from swarm.engine.llama.reply import Reply
from swarm.engine.llama.scoring import Wave
from swarm.engine.llama.step import Cut, Fork, Limits, Span
from swarm.engine.llama.work import Result, Work
from swarm.errors import OutOfTime

LIMITS = Limits(cells=160, tokens=32, rows=32, running=6, sequences=32)
DONE = Scored(logprobs=(0.0,), lengths=(1,), tokens_in=1, tokens_cached=0)


class Glance(Work):
    """A request that is done as soon as its prompt is read."""

    def __init__(self, left_s: float | None) -> None:
        super().__init__((1, 2, 3), 1, origin=Origin(left_s=left_s))

    def absorb(self, heads: Rows, wave: Wave | None, rows: Rows) -> Result | None:
        return DONE if len(heads) else None


class HeldContext:
    """Decodes nothing, and takes as long as it is told to."""

    def __init__(self) -> None:
        self.decoding, self.may_go_on = threading.Event(), threading.Event()

    def apply(self, operations: Iterable[Fork | Cut]) -> None:
        pass

    def decode(self, spans: Sequence[Span]) -> Rows:
        self.decoding.set()
        assert self.may_go_on.wait(10)
        return np.zeros((sum(span.outputs for span in spans), 4), np.float32)

    def close(self) -> None:
        pass


async def test_the_time_left_shrinks_behind_a_long_step() -> None:
    """A request whose time is up when the step before it ends gets `OutOfTime`, though the loop only sees it now."""
    context = HeldContext()
    loop = EngineLoop(Lane(context, LIMITS, "held", None), pytest.fail, "held")  # type: ignore[arg-type]
    first, short, long = Reply(), Reply(), Reply()
    loop.submit(Glance(None), first, None, time.monotonic())
    assert context.decoding.wait(10)
    loop.submit(Glance(0.02), short, None, time.monotonic())
    loop.submit(Glance(60.0), long, None, time.monotonic())
    await asyncio.sleep(0.03)
    context.may_go_on.set()
    assert (await first.future, await long.future) == (DONE, DONE)
    with pytest.raises(OutOfTime):
        await short.future
    loop.close()
