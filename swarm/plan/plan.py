"""The immutable graph of steps that a swarm file and its packs make."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from typing import Literal as OneOf

from protocols.control import Adapter, ModelSpec, TierKind
from protocols.money import Limit
from protocols.packs import Pack
from swarm.config.references import INPUT, Binding, Literal, Ref, Text, references
from swarm.config.schema import Runtime
from swarm.errors import SwarmError

__all__ = ["Binding", "Literal", "MissingInput", "Plan", "PlannedStep", "Ref", "Text", "Tier", "memory_key", "resolve"]

NO_LIMIT = Limit()


class MissingInput(SwarmError):
    """A step cannot start: the task's input has no such key, or the step it waits for has no output."""

    def __init__(self, step: str, ref: str) -> None:
        super().__init__(step, ref)
        self.step = step
        self.ref = ref

    def __str__(self) -> str:
        return f"step '{self.step}' needs {self.ref}, and the task has no such value; add it to the task's input"


@dataclass(frozen=True, slots=True)
class Tier:
    """One way to answer. `model` is `None` for `code` and `person`; `adapter` is a specialist's own for that model."""

    name: str
    kind: TierKind
    model: ModelSpec | None = None
    adapter: Adapter | None = None

    @property
    def recorded(self) -> bool:
        """Does it answer from a file of what was said before?"""
        return self.model is not None and self.model.recording is not None


@dataclass(frozen=True, slots=True)
class Caching:
    """Which earlier answers a step uses again: none, those to the same input (`exact`), those to similar ones too.

    `error`: most of the requests that may be answered wrongly by reuse, with probability `level`. `ttl_s`: how long an
    answer may be used again; `None`: for ever.
    """

    kind: OneOf["off", "exact", "semantic"] = "off"
    error: float = 0.02
    level: float = 0.95
    ttl_s: float | None = None


NO_CACHE = Caching()


@dataclass(frozen=True, slots=True)
class Remembering:
    """Notes under a `key`: `tokens` of them are recalled before a step that may `read`, one is made after one that may
    `write`. `summariser`: what makes one note of the oldest; `None`: they are dropped. It is no step of the graph.
    """

    key: Binding
    tokens: int = 400
    read: bool = True
    write: bool = True
    summariser: PlannedStep | None = None


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A node: what answers it (`ladder`, cheapest first), from what (`inputs`), and what must be done before."""

    name: str
    specialist: str
    pack: Pack
    ladder: tuple[Tier, ...]
    inputs: Mapping[str, Binding]
    needs: frozenset[str]  # steps whose output it reads
    accept_at: float  # least confidence that is accepted, 0..1
    answers_hash: str = ""  # sha256 (hex) of what its answers depend on: pack, ladder, models; not thresholds
    samples: int = 1  # candidates that a local language model may be asked for where its first answer will not do
    cache: Caching = NO_CACHE
    memory: Remembering | None = None


@dataclass(frozen=True, slots=True)
class Aim:
    """What escalation is to achieve beyond each step's `accept_at`. At most one of the first three is set.

    `error`: most wrong answers among those kept local, as a share. `quality`: least share of the strongest tier's right
    answers. `micro_usd_per_task`: most to be spent on a task, on average. `level`: the probability with which the
    first two hold. `answer_micro_usd`: what a right answer is worth; `None`: tiers are asked in order, none is weighed.
    `second_micro_usd`: what a second of waiting costs. `explore`: share of accepted answers also asked of a dearer
    tier, 0..1.
    """

    error: float | None = None
    quality: float | None = None
    micro_usd_per_task: int | None = None
    level: float = 0.95
    answer_micro_usd: int | None = None
    second_micro_usd: int = 0
    explore: float = 0.0

    @property
    def certified(self) -> bool:
        """Is there something that has to be shown with labels before an answer is kept?"""
        return self.error is not None or self.quality is not None


@dataclass(frozen=True, slots=True)
class Plan:
    """A swarm ready to run. `steps` are in topological order, by place in the file where that leaves a choice.

    `hash` (sha256, hex) covers everything that answers depend on: packs, inputs, ladders, models and thresholds, but
    not places in the file, budgets, prices, or where it runs.
    """

    name: str
    description: str
    steps: tuple[PlannedStep, ...]
    task_limit: Limit
    run_limit: Limit
    on_exhausted: OneOf["stop", "degrade"]
    compare_with: str | None
    models: Mapping[str, ModelSpec]  # tier name -> model: those that a ladder uses, and the embedders
    runtime: Runtime
    hash: str
    registry: str | None = None  # path of the models.yaml beside the swarm file, if there is one
    aim: Aim = Aim()
    step_limit: Limit = NO_LIMIT  # of one step of one task
    explore_limit: Limit = NO_LIMIT  # of all exploring in a run
    tenant: str | None = None  # who pays
    tenant_limit: Limit = NO_LIMIT  # over all runs of a store
    learnt: str | None = None  # path of the calibration file beside the swarm file, if there is one
    path: str | None = None  # of the swarm file
    _by_name: Mapping[str, PlannedStep] = field(init=False, repr=False, compare=False)
    _dependents: Mapping[str, tuple[str, ...]] = field(init=False, repr=False, compare=False)
    _places: Mapping[str, int] = field(init=False, repr=False, compare=False)
    _readers: tuple[PlannedStep, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        dependents: dict[str, list[str]] = {step.name: [] for step in self.steps}
        for step in self.steps:
            for needed in step.needs:
                dependents[needed].append(step.name)
        frozen = {name: tuple(names) for name, names in dependents.items()}
        object.__setattr__(self, "_by_name", MappingProxyType({step.name: step for step in self.steps}))
        object.__setattr__(self, "_dependents", MappingProxyType(frozen))
        places = {step.name: place for place, step in enumerate(self.steps)}
        object.__setattr__(self, "_places", MappingProxyType(places))
        readers = tuple(step for step in self.steps if _reads_input(step))
        object.__setattr__(self, "_readers", readers)

    def step(self, name: str) -> PlannedStep:
        """The step of that name. Raises `KeyError`."""
        return self._by_name[name]

    def place(self, name: str) -> int:
        """Where the step of that name stands in `steps`. Raises `KeyError`."""
        return self._places[name]

    def readers(self) -> tuple[PlannedStep, ...]:
        """The steps that read the task's own input."""
        return self._readers

    def dependents(self, name: str) -> tuple[str, ...]:
        """Steps that read this step's output directly, in topological order. Raises `KeyError`."""
        return self._dependents[name]

    def asked(self) -> tuple[PlannedStep, ...]:
        """All that hosts are asked for: the steps, and what summarises their notes."""
        return with_summarisers(self.steps)

    def resolve(
        self, step: PlannedStep | str, task_input: Mapping[str, Any], outputs: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Any]:
        """See `resolve`; also takes a step's name."""
        return resolve(self.step(step) if isinstance(step, str) else step, task_input, outputs)


def resolve(
    step: PlannedStep, task_input: Mapping[str, Any], outputs: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The step's inputs by name, from the task's input and the outputs of the steps done so far.

    A field that a step's output leaves out is `None`. Raises `MissingInput` for a key that the task's input does not
    have and for a step that has no output.
    """
    return {name: _value(step.name, binding, task_input, outputs) for name, binding in step.inputs.items()}


def with_summarisers(steps: tuple[PlannedStep, ...]) -> tuple[PlannedStep, ...]:
    """`steps`, and after them what summarises their notes."""
    summarisers = (step.memory.summariser for step in steps if step.memory is not None)
    return (*steps, *(summariser for summariser in summarisers if summariser is not None))


def memory_key(
    step: PlannedStep, task_input: Mapping[str, Any], outputs: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """Under which key the step remembers in this task; None where it does not, or the task has no such key."""
    if step.memory is None:
        return None
    try:
        return _text(_value(step.name, step.memory.key, task_input, outputs)).strip() or None
    except MissingInput:
        return None


def _reads_input(step: PlannedStep) -> bool:
    return any(ref.source == INPUT for binding in step.inputs.values() for ref in references(binding))


def _value(step: str, binding: Binding, task_input: Mapping[str, Any], outputs: Mapping[str, Mapping[str, Any]]) -> Any:
    match binding:
        case Literal(value):
            return value
        case Ref():
            return _look_up(step, binding, task_input, outputs)
        case Text(parts):
            return "".join(p if isinstance(p, str) else _text(_look_up(step, p, task_input, outputs)) for p in parts)


def _look_up(step: str, ref: Ref, task_input: Mapping[str, Any], outputs: Mapping[str, Mapping[str, Any]]) -> Any:
    of_task = ref.source == INPUT
    if not of_task and ref.source not in outputs:
        raise MissingInput(step, str(ref))
    value: Any = task_input if of_task else outputs[ref.source]
    for part in ref.path:
        if (type(value) is dict or isinstance(value, Mapping)) and part in value:  # nearly always the first
            value = value[part]
        elif of_task:
            raise MissingInput(step, str(ref))
        else:
            return None
    return value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
