"""One attempt at a step: what is asked of a host and the two ways it can come back."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from protocols.ids import AttemptId, HostId, TaskId
from protocols.money import MicroUSD


class Signals(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an attempt tells about its own certainty. `None` means that this tier has no such signal."""

    p: float | None = None  # probability of the chosen option, 0..1
    margin: float | None = None  # that minus the runner-up's
    entropy: float | None = None  # of the options, as a share of the largest possible, 0..1
    mean_logprob: float | None = None  # per generated token, nats
    min_logprob: float | None = None
    similarity: float | None = None  # mean cosine to the five nearest examples
    agreement: float | None = None  # 1 if an earlier tier said the same, 0 if not
    checks_failed: tuple[str, ...] = ()
    options: dict[str, float] = {}  # the likeliest options, at most five


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an attempt used. Tokens read from a cached prefix are not counted again."""

    tokens_in: int = 0
    tokens_out: int = 0
    ms: int = 0  # wall time in the host, queueing included
    micro_usd: MicroUSD = 0


class Earlier(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a cheaper tier said about the same step before it was escalated."""

    tier: str
    output: dict[str, Any]
    signals: Signals = Signals()


class Ask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="ask"):
    """Please answer this step with this tier. `left_ms` is the time left when it was sent.

    `key`: of what this writes to the world outside, the same whenever that is asked again. `once`: it must not be given
    to a host again when it may have been given to one before.
    """

    id: AttemptId
    task: TaskId
    step: str
    specialist: str
    tier: str
    input: dict[str, Any]
    max_tokens: int
    left_ms: int | None = None
    earlier: tuple[Earlier, ...] = ()
    samples: int = 1  # candidates that the answer is to be chosen from
    key: str = ""
    once: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="answer"):
    """The step's output; it satisfies the pack's schema."""

    id: AttemptId
    output: dict[str, Any]
    signals: Signals = Signals()
    usage: Usage = Usage()
    host: HostId = ""


Reason = Literal[
    "invalid_output",  # the tier produced nothing that satisfies the schema
    "too_long",  # the input does not fit the model's context
    "declined",  # the tier has nothing to say about this input (no pattern matched, no template)
    "tool_error",  # the pack's own code raised
    "unknown_effect",  # a write may have been done or not, and must not be repeated
    "timeout",
    "cancelled",
    "unavailable",  # the tier cannot be reached or its key is missing
    "overloaded",
    "host_died",
    "error",
]


class Failed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="failed"):
    """The attempt ended without an output. `unknown` says that something may have been spent that nobody saw.

    `retry_ms`: how long to wait before this tier is asked again, where it is `retryable` and has said so.
    """

    id: AttemptId
    reason: Reason
    detail: str = ""
    retryable: bool = False
    unknown: bool = False
    retry_ms: int | None = None
    signals: Signals = Signals()
    usage: Usage = Usage()
    host: HostId = ""
