"""A provider that misbehaves in every way: the task ends by its deadline, and no dollar is spent unseen.

The provider is a real server in this process, the swarm a program of its own, so that its memory is its own.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "engine"))

from paid_swarm import RIGHT
from paid_tasks import DEADLINE_S
from remote_provider import (
    Act,
    Provider,
    bomb,
    completion,
    crumbles,
    cuts,
    drips,
    floods,
    hangs,
    heads,
    provider,
    refuses,
    says,
    sends,
    slams,
)

MOST_GROWN = 48 * 1024 * 1024
LARGE = 100 * 1024 * 1024
SLACK_MS = 3000  # of a machine that has other things to do


@dataclass(frozen=True)
class Fault:
    """What the provider does; how often it is asked, how the task ends, and what is charged for each call."""

    act: Act
    calls: int
    status: str
    charged: Literal["nothing", "hold", "used"]


def billed(usage: Any) -> Act:
    return sends(json.dumps({"choices": [{"message": {"content": RIGHT}}], "usage": usage}).encode())


FAULTS = {
    "none": Fault(says(RIGHT), 1, "done", "used"),
    "429": Fault(refuses(429, "slow down"), 2, "failed", "nothing"),
    "429, in a second": Fault(refuses(429, "slow down", retry_after="1"), 2, "failed", "nothing"),
    "429, in an hour": Fault(refuses(429, "slow down", retry_after="3600"), 1, "failed", "nothing"),
    "429, never": Fault(refuses(429, "slow down", retry_after="nan"), 2, "failed", "nothing"),
    "500": Fault(refuses(500, "sorry"), 2, "failed", "nothing"),
    "hang": Fault(hangs, 1, "deadline", "hold"),
    "drip": Fault(drips("body"), 1, "deadline", "hold"),
    "drip of a header": Fault(drips("head"), 1, "deadline", "hold"),
    "drip of interim answers": Fault(drips("informed"), 1, "deadline", "hold"),
    "cut in the middle": Fault(cuts, 2, "failed", "hold"),
    "cut before a word": Fault(slams, 2, "failed", "hold"),
    "bad UTF-8": Fault(sends(completion("x").replace(b"x", b"\xc3\x28")), 1, "failed", "hold"),
    "bad JSON": Fault(sends(completion("x")[:-30]), 1, "failed", "hold"),
    "deep JSON": Fault(sends(b"[" * 1_000_000), 1, "failed", "hold"),
    "100 MB": Fault(floods(LARGE), 1, "failed", "hold"),
    "100 MB, announced": Fault(floods(LARGE, chunked=False), 1, "failed", "hold"),
    "100 MB of an error": Fault(floods(LARGE, 500), 1, "failed", "hold"),
    "100 MB of headers": Fault(heads, 2, "failed", "hold"),
    "100 MB in crumbs": Fault(crumbles(LARGE), 1, "failed", "hold"),
    "100 MB, packed": Fault(sends(gzip.compress(b" " * LARGE), content_encoding="gzip"), 1, "failed", "hold"),
    "many objects": Fault(sends(bomb(1_000_000)), 2, "failed", "used"),
    "usage missing": Fault(billed(None), 1, "failed", "hold"),
    "usage negative": Fault(billed({"prompt_tokens": -1, "completion_tokens": 5}), 1, "failed", "hold"),
    "usage huge": Fault(billed({"prompt_tokens": 10**30, "completion_tokens": 5}), 1, "failed", "hold"),
    "usage in words": Fault(billed({"prompt_tokens": "100", "completion_tokens": "ten"}), 1, "failed", "hold"),
    "usage beyond the hold": Fault(says(RIGHT, 90_000, 90_000), 1, "done", "hold"),
}


@dataclass(frozen=True)
class Played:
    """One fault, seen from both ends."""

    server: Provider
    told: dict[str, Any]


@pytest.fixture(scope="module")
def played() -> Iterator[dict[str, Played]]:
    with ExitStack() as stack:
        servers = {name: stack.enter_context(provider(fault.act)) for name, fault in FAULTS.items()}
        child = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("paid_tasks.py"))],
            input=json.dumps([(name, server.url) for name, server in servers.items()]),
            capture_output=True, text=True, timeout=60 + 2 * DEADLINE_S * len(FAULTS), check=False,
            env={**os.environ, "TEST_MODEL_KEY": "sk-planted-0123456789abcdef", "NO_PROXY": "127.0.0.1"},
        )  # fmt: skip
        assert child.returncode == 0, child.stderr[-2000:]
        told = dict(map(json.loads, child.stdout.splitlines()))
        print({name: f"{t['grown'] / 2**20:.0f} MiB, {t['ms']} ms" for name, t in told.items()})
        yield {name: Played(server, told[name]) for name, server in servers.items()}


@pytest.mark.parametrize("name", FAULTS)
def test_task_ends_in_time_and_is_charged_for_what_may_have_been_billed(name: str, played: dict[str, Played]) -> None:
    """By its deadline, after one retry at the most; what is unknown costs its hold, what was refused costs nothing."""
    fault, told = FAULTS[name], played[name].told
    assert told["status"] == fault.status, told["reason"]
    assert told["ms"] <= DEADLINE_S * 1000 + SLACK_MS
    assert len(played[name].server.seen) == len(told["held"]) == fault.calls <= 2
    match fault.charged:
        case "nothing":
            assert told["settled"] == 0
        case "hold":
            assert told["settled"] == sum(told["held"]) > 0
        case "used":
            assert 0 < told["settled"] < sum(told["held"])


@pytest.mark.parametrize("name", FAULTS)
def test_memory_stays_small(name: str, played: dict[str, Played]) -> None:
    """Whatever is sent, the program that asked does not grow with it."""
    assert played[name].told["grown"] < MOST_GROWN


def test_no_more_than_the_limit_is_taken(played: dict[str, Played]) -> None:
    """Of 100 MB, the server gets rid of what fits the limit and the buffers on the way."""
    for name in ("100 MB", "100 MB, announced", "100 MB of an error", "100 MB of headers"):
        assert played[name].server.sent_bytes < LARGE // 4


def test_pause_is_kept(played: dict[str, Played]) -> None:
    """The second call comes no sooner than the provider has asked for, and after a second where it said nothing."""
    for name in ("429", "429, in a second", "429, never"):
        first, second = played[name].server.seen
        assert second.at - first.at >= 1.0
