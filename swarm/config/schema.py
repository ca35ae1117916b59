"""What a swarm file may hold, as strict frozen pydantic models. `docs/swarm-file.md` explains each key."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field, Tag, model_validator

from swarm.config.part import BY_SHAPE, BY_TYPE, Part
from swarm.config.specialist import Specialist
from swarm.config.values import (
    Bytes,
    ContextTokens,
    Count,
    Env,
    Layers,
    OpenShare,
    RelativePath,
    Seconds,
    Share,
    SpecialistName,
    StepName,
    StorePlace,
    Text,
    TierName,
    Tokens,
    Url,
    Usd,
    wrong,
)


class LocalModel(Part):
    """A model of the registry, run on this machine. `context` in tokens."""

    use: Text
    context: ContextTokens = 4096
    gpu_layers: Layers = 0


class Price(Part):
    """US dollars for a million tokens."""

    input: Usd
    output: Usd


class RemoteModel(Part):
    """A model behind an OpenAI-compatible address. `timeout` in seconds; no `price` means the published price."""

    model: Text
    base_url: Url
    api_key: Env | None = None
    price: Price | None = None
    timeout: Seconds = 60.0


class RecordedModel(Part):
    """Answers from a file beside the swarm; nobody is asked. `as`: the kind of tier that it stands for.

    `timed`: each answer takes the time that it took when it was recorded.
    """

    replay: RelativePath
    stands_for: Literal["head", "small", "remote"] = Field("remote", alias="as")
    timed: bool = False


Model = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[LocalModel, Tag("<mapping>")]
    | Annotated[RemoteModel, Tag("<remote>")]
    | Annotated[RecordedModel, Tag("<replay>")],
    BY_SHAPE,
]


class Semantic(Part):
    """`error`: most of the requests that may be answered wrongly by reuse, with probability `confidence`."""

    error: OpenShare = 0.02
    confidence: OpenShare = 0.95


class CachePart(Part):
    """Answers that are used again: to the same input, and with `semantic` to one like it. `ttl` in seconds."""

    semantic: Semantic | None = None
    ttl: Seconds | None = None


OffOrExact = Literal["off", "exact"]
Cache = Annotated[Annotated[OffOrExact, Tag("<text>")] | Annotated[CachePart, Tag("<mapping>")], BY_TYPE]


class MemoryPart(Part):
    """Notes under a key, of all tasks of this swarm: `tokens` of them are recalled, and what was answered is noted.

    `summarise`: the specialist that makes one note of the oldest when they have become too many.
    """

    key: Text
    tokens: Tokens = 400
    read: bool = True
    write: bool = True
    summarise: Text | None = None


class Step(Part):
    """One node of the plan. `input` values may hold references such as `${intent.label}`."""

    specialist: Text
    input: dict[str, Any] = Field({})
    accept_at: Share | None = None
    cache: Cache | None = None
    memory: MemoryPart | None = None


class Target(Part):
    """What escalation is to keep to: one of `error`, `quality` and `max_usd_per_task`.

    `error`: most of the answers kept local that may be wrong. `quality`: least share of the strongest tier's right
    answers. `confidence`: the probability with which either holds.
    """

    error: OpenShare | None = None
    quality: OpenShare | None = None
    max_usd_per_task: Usd | None = None
    confidence: OpenShare = 0.95

    @model_validator(mode="after")
    def _one_aim(self) -> Target:
        aims = ("error", "quality", "max_usd_per_task")
        if sum(getattr(self, aim) is not None for aim in aims) != 1:
            raise wrong(f"needs exactly one of {', '.join(aims)}")
        return self


class Value(Part):
    """What a right answer is worth, and what a second of waiting costs, in US dollars."""

    answer: Usd
    second: Usd = Decimal(0)


class Escalation(Part):
    """`accept_at`: least confidence accepted. `compare_with`: model whose price the receipt compares with.

    `explore`: share of the accepted answers that a dearer tier is asked about too, to see what they are worth.
    """

    accept_at: Share = 0.8
    compare_with: Text | None = None
    target: Target | None = None
    value: Value | None = None
    explore: Share = 0.0

    @model_validator(mode="after")
    def _priced(self) -> Escalation:
        if self.target is not None and self.target.max_usd_per_task is not None and self.value is None:
            raise wrong("keeps to target.max_usd_per_task by weighing prices; add value: {answer: …} beside it")
        return self


class LimitPart(Part):
    """The most that may be spent; a unit left out has no limit."""

    usd: Usd | None = None
    tokens: Tokens | None = None
    seconds: Seconds | None = None


class TenantPart(LimitPart):
    """Who pays, over all runs of one store."""

    name: Text


class Budget(Part):
    """Limits of a step of a task, of a task, of a whole run and of a tenant, and what happens at the limit.

    `explore`: what exploring may cost in a run.
    """

    step: LimitPart = LimitPart()
    task: LimitPart = LimitPart()
    run: LimitPart = LimitPart()
    tenant: TenantPart | None = None
    explore: LimitPart = LimitPart()
    on_exhausted: Literal["stop", "degrade"] = "stop"


class Runtime(Part):
    """Where the swarm runs. `memory`: bytes a host; `store`, `person_file`: relative to the command's own folder."""

    kind: Literal["ray", "in-process"] = "in-process"
    hosts: Count = 1
    cpus: Count = 1
    memory: Bytes | None = None
    max_in_flight: Count = 32
    mailbox: Count = 256
    store: StorePlace | None = None
    person_file: RelativePath | None = None
    address: Text | None = None


class SwarmSpec(Part):
    """A whole swarm file."""

    version: Literal["swarm/v1"] = Field(alias="schema")
    name: Text
    description: Text | None = None
    models: dict[TierName, Model] = Field({})
    specialists: dict[SpecialistName, Specialist] = Field(json_schema_extra={"minProperties": 1})
    steps: dict[StepName, Step] = Field(json_schema_extra={"minProperties": 1})
    escalation: Escalation = Escalation()
    cache: OffOrExact = "exact"
    budget: Budget = Budget()
    runtime: Runtime = Runtime()
