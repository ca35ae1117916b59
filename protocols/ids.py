"""Names of things. All are plain strings on the wire; the aliases say which is meant."""

from __future__ import annotations

import os
import random
import time

RunId = str  # "r-0192f1c2d3e4-5b7a"
TaskId = str  # "t-…", one per item given to `run`
AttemptId = str  # "a-…", one per ask; the idempotency key of its delivery
HostId = str  # "host-0", or "local" for the dispatcher's own process


_chance = random.Random()  # our own: a program that seeds the shared one must not repeat ids
os.register_at_fork(after_in_child=_chance.seed)


def new_id(prefix: str) -> str:
    """A fresh id that sorts by the millisecond it was made in: `prefix-<48 bits of time>-<40 random bits>`."""
    return f"{prefix}-{time.time_ns() // 1_000_000:012x}-{_chance.getrandbits(40):010x}"
