"""What the runtime says to its hosts, and what they say about themselves."""

from __future__ import annotations

from typing import Literal

import msgspec

from protocols.ids import AttemptId, HostId
from protocols.packs import Pack

TierKind = Literal["code", "head", "small", "remote", "person"]


class Recording(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file of recorded answers by its place, the same on every machine, and by what is in it.

    `most_micro_usd`, `most_tokens`: the most that one of them cost. `timed`: each takes the time that it took then.
    """

    path: str
    sha256: str
    most_micro_usd: int = 0
    most_tokens: int = 0
    timed: bool = False


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model by its name in the registry (local), by its address (remote) or by what it once said (recorded).

    Secrets are named, never carried.
    """

    tier: str
    kind: TierKind
    name: str
    base_url: str | None = None
    key_env: str | None = None
    input_micro_usd_per_mtok: int | None = None
    output_micro_usd_per_mtok: int | None = None
    timeout_s: float = 60.0
    context: int = 4096
    gpu_layers: int = 0
    recording: Recording | None = None  # answers from there; nobody is asked


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA file by its place, the same on every machine, and by what is in it."""

    path: str
    sha256: str


class HostSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="host_spec"):
    """What a host is to be: its specialists with the tiers each has here, the models, and its limits.

    `adapters` is keyed `specialist/tier`.
    """

    host: HostId
    packs: dict[str, Pack]  # specialist name -> pack
    tiers: dict[str, tuple[str, ...]]  # specialist name -> tiers answered here
    models: dict[str, ModelSpec]  # tier name -> model
    threads: int = 1
    mailbox: int = 256
    registry: str | None = None  # the swarm's own models.yaml beside the catalogue's, if any
    adapters: dict[str, Adapter] = {}


class Calibration(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A logistic map from signals to P(correct): sigmoid(intercept + Σ weight × feature).

    `knots` is a monotone, piecewise linear correction of its result, as (from, to) from 0 to 1; empty where none was
    learnt. `n_effective` is what weighted labels are worth in plain ones.
    """

    intercept: float
    weights: dict[str, float]
    n_labels: int = 0
    accuracy: float | None = None
    knots: tuple[tuple[float, float], ...] = ()
    n_effective: float | None = None


class Ready(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="ready"):
    """The host has loaded its models. `calibrations` is keyed `specialist/tier`."""

    host: HostId
    node: str
    pid: int
    calibrations: dict[str, Calibration] = {}
    models: dict[str, str] = {}  # tier -> sha256 of the file in use


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """Stop this attempt; its answer is no longer wanted."""

    id: AttemptId


class Overloaded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="overloaded"):
    """The mailbox is full; the ask was not taken. Try again in `retry_ms`, or elsewhere."""

    id: AttemptId
    host: HostId
    retry_ms: int = 50


class Health(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="health"):
    """A frozen look at a host."""

    host: HostId
    waiting: int
    running: int
    answered: int
    rss_bytes: int
