"""What an engine is asked to do, and what it answers. It crosses a process boundary when an engine has its own process.

A request is complete in itself: an engine keeps nothing between two of them but what makes the next one cheaper.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

Role = Literal["system", "user", "assistant"]
KvFormat = Literal["f16", "bf16", "f32", "q8_0"]


class Turn(msgspec.Struct, frozen=True):
    """One turn of a chat. `text` is never read as control tokens, whatever it contains."""

    role: Role
    text: str


class Prompt(msgspec.Struct, frozen=True):
    """What the model reads.

    `turns` end with a user turn. `answer_start` is put at the beginning of the model's answer (no trailing space: it
    would break tokenisation). The first `shared` turns are the same for every prompt of a specialist: the engine keeps
    them decoded even before a second prompt shows that they are shared.
    """

    turns: tuple[Turn, ...]
    answer_start: str = ""
    shared: int = 0


class Origin(msgspec.Struct, frozen=True):
    """For whom work is done. Work of the task that has had least of the engine goes first.

    `left_s`: seconds until the answer is of no use; the work is given up then. `specialist` groups what is learnt about
    requests of one kind (how often drafts are accepted).
    """

    task: str = ""
    specialist: str = ""
    left_s: float | None = None


class ScoreRequest(msgspec.Struct, frozen=True):
    """How likely is each of `options` as the continuation of `prompt`?

    `measure`: with `joint` the log-probability of an option's whole text; with `constrained` the log-probability that
    decoding under a grammar of the options draws it: at each token only those count that some option allows, so that
    tokens without an alternative are free. The first compares options as texts and is exact about each of them; the
    second reads a few tokens only, however many options there are.

    An option's score is its log-probability in nats, divided by its tokens if `by_length`; less `prior_share` times
    the same after the content-free prompt `prior` (contextual calibration, Zhao et al., ICML 2021); plus its entry in
    `offsets`. `need`: with `all` every option is read to its end; with `margin` only those that can still be best or
    second, with `best` those that can be best (branch and bound: a log-probability only falls with each token); the
    others keep an upper bound.
    `adapter` is one of the paths in `EngineSpec.adapters`.
    """

    prompt: Prompt
    options: tuple[str, ...]
    measure: Literal["joint", "constrained"] = "joint"
    need: Literal["all", "margin", "best"] = "all"
    by_length: bool = False
    prior: Prompt | None = None
    prior_share: float = 0.5
    offsets: tuple[float, ...] = ()
    adapter: str | None = None
    origin: Origin = Origin()


class Scored(msgspec.Struct, frozen=True):
    """The options in the order of the request.

    `logprobs[i]`: log-probability (nats, summed over tokens) of option i, an upper bound of it where not `exact[i]`;
    `lengths[i]`: its tokens; `scores[i]`: what the options are compared by. The best option is exact, and the second
    unless only the best was asked for: then `margin` is what it is at least.
    """

    logprobs: tuple[float, ...]
    lengths: tuple[int, ...]
    tokens_in: int  # decoded for this request; what a shared prefix saved is not counted
    tokens_cached: int
    scores: tuple[float, ...] = ()  # the log-probabilities themselves when empty
    exact: tuple[bool, ...] = ()  # all of them when empty

    @property
    def ranked(self) -> tuple[float, ...]:
        """What the options are compared by."""
        return self.scores or self.logprobs

    @property
    def best(self) -> int:
        """The place of the option with the highest score; the first of several."""
        return max(range(len(self.ranked)), key=self.ranked.__getitem__)

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Softmax of the scores: each option's share, given that it is one of them."""
        top = max(self.ranked)
        weights = [math.exp(score - top) for score in self.ranked]
        total = sum(weights)
        return tuple(weight / total for weight in weights)

    @property
    def margin(self) -> float:
        """Probability of the best option less that of the second; 1 when there is one option only."""
        first, *rest = sorted(self.probabilities, reverse=True)
        return first - rest[0] if rest else 1.0

    @property
    def entropy(self) -> float:
        """Entropy of the probabilities in nats, from 0 to log(options)."""
        return -sum(p * math.log(p) for p in self.probabilities if p > 0)


class GenerateRequest(msgspec.Struct, frozen=True):
    """Write at most `max_tokens` after `prompt`, greedily when `temperature` is 0.

    `schema` constrains the text to JSON that satisfies it; `regex` to a match. At most one of them is set.
    `stop` strings end the text and are not part of it. `draft`: text that repeats the prompt may be written several
    tokens at a time; it is the same text.
    """

    prompt: Prompt
    max_tokens: int
    schema: dict[str, Any] | None = None
    regex: str | None = None
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    seed: int = 0
    draft: bool = True
    adapter: str | None = None
    origin: Origin = Origin()


class Generated(msgspec.Struct, frozen=True):
    """`finish`: `stop` (end of turn, stop string or grammar complete) or `length` (cut at `max_tokens`).

    A text under a schema is valid JSON even when it was cut: it was brought to an end in time.
    """

    text: str
    finish: Literal["stop", "length"]
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    logprobs: tuple[float, ...]  # of each generated token under the unmasked model, nats; forced tokens are left out
    fields: dict[str, float] = {}  # under a schema: mean log-probability (nats) of each top-level field's own tokens
    drafted: int = 0  # tokens that were guessed from the prompt and decoded along
    accepted: int = 0  # of those, the ones that the model then chose

    @property
    def mean_logprob(self) -> float:
        """Nats a token; 0 when there was no choice at all."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else 0.0

    @property
    def min_logprob(self) -> float:
        """Nats of the least likely token; 0 when there was no choice at all."""
        return min(self.logprobs, default=0.0)


class EngineStatistics(msgspec.Struct, frozen=True):
    """A frozen look at an engine since it was opened."""

    steps: int = 0
    tokens_decoded: int = 0
    tokens_cached: int = 0
    tokens_restored: int = 0  # prefixes read from disk instead of being decoded
    tokens_drafted: int = 0
    tokens_accepted: int = 0
    finished: int = 0
    cancelled: int = 0  # given up: cancelled, or out of time
    waiting: int = 0
    running: int = 0
    prefixes: int = 0
    cells: int = 0  # KV memory in use or promised, in tokens
    restarts: int = 0  # after a native crash


class EngineSpec(msgspec.Struct, frozen=True):
    """How to open a model. `threads` never exceeds the cores granted to the process."""

    path: str
    chat_format: str = "plain"  # a name in `swarm.engine.llama.chat.FORMATS`
    threads: int = 1
    context: int = 4096  # tokens of KV memory, shared by everything in flight
    sequences: int = 32  # requests decoded side by side
    batch: int = 256  # most tokens in one decode
    gpu_layers: int = 0
    flash_attention: bool = True
    kv_format: KvFormat = "f16"
    model_hash: str = ""  # SHA-256 of the file, where it is known: names what is kept on disk for it
    prefix_folder: str | None = None  # where decoded prefixes are kept between runs; nowhere when `None`
    adapters: tuple[str, ...] = ()  # LoRA files that requests may name
