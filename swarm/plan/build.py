"""From a swarm file, packs and the model registry to a `Plan`, or to all problems of all three at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from protocols.money import Limit, micro_usd
from protocols.packs import Pack
from swarm import config
from swarm.catalogue import Catalogue
from swarm.config import SwarmFile
from swarm.config.problems import Problem, error
from swarm.config.schema import Escalation, LimitPart, Step
from swarm.config.specialist import Specialist
from swarm.errors import SchemaUnsupported, quote
from swarm.plan import inputs, models
from swarm.plan.adapters import AdapterReader
from swarm.plan.caching import caching
from swarm.plan.ladder import CAN_USE, samples_problem, why_not
from swarm.plan.order import in_order
from swarm.plan.plan import Aim, Binding, Plan, PlannedStep, Remembering, Tier, with_summarisers
from swarm.plan.remembering import remembering
from swarm.plan.specialists import PackMaker

CheckSchema = Callable[[dict[str, Any]], None]


def load(
    path: str | Path, catalogue: Catalogue, kinds: Mapping[str, str], check_schema: CheckSchema | None = None
) -> Plan:
    """Read a swarm file and build its plan. Raises `SwarmFileError` with every problem of the file and the plan."""
    return build(config.read(path), catalogue, kinds, check_schema)


def build(
    file: SwarmFile, catalogue: Catalogue, kinds: Mapping[str, str], check_schema: CheckSchema | None = None
) -> Plan:
    """The plan of a file.

    `kinds` tells the kind of each model in the registry (`gguf`, `onnx-embedder`). `check_schema` raises
    `SchemaUnsupported` for an output schema that cannot be enforced while decoding. Raises `SwarmFileError` with all
    problems, those of `file` too.
    """
    builder = _Builder(file, catalogue, kinds, check_schema)
    steps = builder.steps()
    if builder.problems:
        raise error(builder.problems)
    spec = file.spec
    used = {tier.name: tier.model for step in with_summarisers(steps) for tier in step.ladder if tier.model}
    used |= {tier.name: tier.model for tier in builder.embedders() if tier.model}
    return Plan(
        name=spec.name,
        description=spec.description or "",
        steps=steps,
        task_limit=_limit(spec.budget.task),
        run_limit=_limit(spec.budget.run),
        on_exhausted=spec.budget.on_exhausted,
        compare_with=spec.escalation.compare_with,
        models=MappingProxyType(used),
        runtime=spec.runtime,
        hash=_hash(steps, builder.embedder_names()),
        aim=_aim(spec.escalation),
        step_limit=_limit(spec.budget.step),
        explore_limit=_limit(spec.budget.explore),
        tenant=spec.budget.tenant.name if spec.budget.tenant else None,
        tenant_limit=_limit(spec.budget.tenant) if spec.budget.tenant else Limit(),
    )


class _Builder:
    def __init__(
        self, file: SwarmFile, catalogue: Catalogue, kinds: Mapping[str, str], check_schema: CheckSchema | None
    ) -> None:
        self._file = file
        self._check_schema = check_schema
        self._tiers, problems = models.tiers(file, kinds)
        self._all_models = not problems and not any(path[:1] == ("models",) for path in file.broken)
        self.problems = [*file.problems, *problems]
        self._packs: dict[str, Pack] = {}
        self._adapters: dict[str, AdapterReader] = {}
        for name, specialist in file.spec.specialists.items():
            maker = PackMaker(file, name, specialist, catalogue)
            pack = maker.make()
            self.problems += maker.problems
            if pack is not None:
                self._packs[name] = pack
            self._adapters[name] = AdapterReader(file, name, specialist)
            self._adapters[name].read()

    def embedders(self) -> list[Tier]:
        """The embedding models; a small tier chooses its examples with them, whether or not a ladder names one."""
        return [tier for tier in self._tiers.values() if tier.kind == "head" and not tier.recorded]

    def embedder_names(self) -> list[str]:
        return [tier.model.name for tier in self.embedders() if tier.model]

    def steps(self) -> tuple[PlannedStep, ...]:
        """The steps in order; whole only when `problems` stays empty."""
        spec = self._file.spec
        packs = {
            name: self._packs[step.specialist] for name, step in spec.steps.items() if step.specialist in self._packs
        }
        ladders = {name: self._ladder(name, specialist) for name, specialist in spec.specialists.items()}
        self.problems += [problem for reader in self._adapters.values() for problem in reader.problems]
        planned = []
        for name, step in spec.steps.items():
            bound, problems = inputs.bind(self._file, name, step, packs)
            self.problems += problems
            if name in packs and ladders.get(step.specialist):
                made = self._step(name, step, packs[name], ladders[step.specialist], bound)
                planned.append(self._remembering(made, step, bound, ladders))
        return tuple(planned) if self.problems else in_order(planned)

    def _step(self, name: str, step: Step, pack: Pack, ladder: tuple[Tier, ...], bound: inputs.Bound) -> PlannedStep:
        cache, problems = caching(self._file, name, step, pack, embedder=bool(self.embedders()) or not self._all_models)
        self.problems += problems
        samples = self._file.spec.specialists[step.specialist].samples or 1
        return PlannedStep(
            name=name,
            specialist=step.specialist,
            pack=pack,
            ladder=ladder,
            inputs=MappingProxyType(bound.inputs),
            needs=bound.needs,
            accept_at=self._file.spec.escalation.accept_at if step.accept_at is None else step.accept_at,
            answers_hash=_digest(
                [pack.content_hash(), [_identity(t) for t in ladder], _bindings(bound.inputs), self.embedder_names()]
                + ([samples] if samples > 1 else [])
            ),
            samples=samples,
            cache=cache,
        )

    def _remembering(
        self, made: PlannedStep, step: Step, bound: inputs.Bound, ladders: Mapping[str, tuple[Tier, ...]]
    ) -> PlannedStep:
        memory, problems = remembering(self._file, made.name, step, bound, made.cache, self._packs, ladders)
        self.problems += problems
        if memory is None or not memory.read:
            return replace(made, memory=memory)
        return replace(made, memory=memory, answers_hash=_digest([made.answers_hash, "memory", memory.tokens]))

    def _ladder(self, name: str, specialist: Specialist) -> tuple[Tier, ...]:
        pack = self._packs.get(name)
        if pack is None:
            return ()
        named = specialist.tiers or ((specialist.model,) if specialist.model else ())
        if not named and pack.kind == "tool":
            named = ("code",)
        if not named and specialist.pack is not None:
            can = ", ".join(CAN_USE[pack.kind])
            text = f"has no tiers; name who answers, cheapest first (kind {pack.kind} can use {can})"
            self.problems.append(self._file.at(("specialists", name, "tiers"), text))
        known = [(i, self._tiers[tier]) for i, tier in enumerate(named) if tier in self._tiers]
        whole = len(known) == len(named)
        self.problems += self._misfits(name, specialist, pack, known, all_known=whole)
        wrong = samples_problem(pack, [tier for _, tier in known]) if specialist.samples is not None and whole else None
        if wrong is not None:
            self.problems.append(self._file.at(("specialists", name, "samples"), wrong, True))
        return self._adapters[name].on([tier for _, tier in known], whole=whole)

    def _misfits(
        self, name: str, specialist: Specialist, pack: Pack, known: list[tuple[int, Tier]], all_known: bool
    ) -> Iterator[Problem]:
        reasons = [(i, tier, self._why_not(pack, tier)) for i, tier in known]
        wrong = [(i, tier, reason) for i, tier, reason in reasons if reason]
        steps = [step for step, value in self._file.spec.steps.items() if value.specialist == name]
        if wrong and all_known and len(wrong) == len(known):
            for step in steps:
                text = f"nobody can do this step: no tier of specialist {quote(name)} can answer"
                yield self._file.at(("steps", step, "specialist"), text)
        for i, tier, reason in wrong:
            place = ("tiers", i) if specialist.tiers else ("model",)
            yield self._file.at(("specialists", name, *place), f"tier {quote(tier.name)} ({tier.kind}) {reason}")

    def _why_not(self, pack: Pack, tier: Tier) -> str | None:
        if tier.recorded:
            return why_not(pack, tier.kind, recorded=True)
        return why_not(pack, tier.kind) or self._unsupported(pack, tier)

    def _unsupported(self, pack: Pack, tier: Tier) -> str | None:
        if pack.kind == "classify" and tier.kind == "small" and self._all_models and not self.embedders():
            return "chooses examples by embedding, and models has none for it; add head: all-MiniLM-L6-v2"
        if self._check_schema is None or pack.kind != "extract" or tier.kind != "small":
            return None
        try:
            self._check_schema(pack.output_schema)
        except SchemaUnsupported as e:
            return f"cannot keep to the output schema: {' '.join(str(e).split())}"
        return None


def _limit(part: LimitPart) -> Limit:
    return Limit(
        micro_usd=None if part.usd is None else micro_usd(part.usd),
        tokens=part.tokens,
        ms=None if part.seconds is None else round(part.seconds * 1000),
    )


def _aim(part: Escalation) -> Aim:
    target, value = part.target, part.value
    aim = Aim(explore=part.explore)
    if target is not None:
        most = None if target.max_usd_per_task is None else micro_usd(target.max_usd_per_task)
        aim = replace(aim, error=target.error, quality=target.quality, micro_usd_per_task=most, level=target.confidence)
    if value is not None:
        aim = replace(aim, answer_micro_usd=micro_usd(value.answer), second_micro_usd=micro_usd(value.second))
    return aim


def _hash(steps: tuple[PlannedStep, ...], embedders: list[str]) -> str:
    content: list[Any] = [
        {
            "name": step.name,
            "specialist": step.specialist,
            "pack": step.pack.content_hash(),
            "ladder": [_identity(tier) for tier in step.ladder],
            "inputs": _bindings(step.inputs),
            "accept_at": step.accept_at,
            **({"cache": [step.cache.error, step.cache.level]} if step.cache.kind == "semantic" else {}),
            **({"memory": _notes(step.memory)} if step.memory is not None else {}),
            **({"samples": step.samples} if step.samples > 1 else {}),
        }
        for step in steps
    ]
    content.append(embedders)
    return _digest(content)


def _notes(memory: Remembering) -> list[Any]:
    by = memory.summariser
    summarised = [] if by is None else [by.pack.content_hash(), [_identity(tier) for tier in by.ladder]]
    return [_bindings({"key": memory.key}), memory.tokens, memory.read, memory.write, *summarised]


def _bindings(inputs: Mapping[str, Binding]) -> dict[str, Any]:
    return {name: [type(binding).__name__, binding] for name, binding in inputs.items()}


def _digest(content: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


def _identity(tier: Tier) -> list[Any]:
    """What of a tier its answers depend on: not its price, its patience or its key, nor where its adapter lies."""
    model = [tier.model.name, tier.model.base_url, tier.model.context] if tier.model else []
    said = [tier.model.recording.sha256] if tier.model and tier.model.recording else []
    return [tier.name, tier.kind, *model, *said, *([tier.adapter.sha256] if tier.adapter else [])]
