"""From the models of a swarm file to tiers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from protocols.control import ModelSpec, TierKind
from protocols.money import micro_usd
from swarm.config import SwarmFile
from swarm.config.problems import Problem, did_you_mean
from swarm.config.schema import LocalModel, RecordedModel, RemoteModel
from swarm.config.values import CODE, PERSON
from swarm.errors import quote
from swarm.plan.plan import Tier
from swarm.plan.recordings import recorded

_KINDS: dict[str, TierKind] = {"gguf": "small", "onnx-embedder": "head"}
BUILT_IN = {CODE: Tier(CODE, "code"), PERSON: Tier(PERSON, "person")}


def tiers(file: SwarmFile, kinds: Mapping[str, str]) -> tuple[dict[str, Tier], list[Problem]]:
    """Every tier of the file by name, and the problems of those left out.

    `kinds`: name in the model registry -> `gguf` or `onnx-embedder`.
    """
    found = dict(BUILT_IN)
    problems: list[Problem] = []
    for name, model in file.spec.models.items():
        if isinstance(model, RemoteModel):
            found[name] = Tier(name, "remote", _remote(name, model))
            continue
        if isinstance(model, RecordedModel):
            said = recorded(file, name, model)
            if isinstance(said, Problem):
                problems.append(said)
            else:
                found[name] = Tier(name, said.kind, said)
            continue
        local = LocalModel(use=model) if isinstance(model, str) else model
        if local.use in kinds and kinds[local.use] in _KINDS:
            kind = _KINDS[kinds[local.use]]
            spec = ModelSpec(tier=name, kind=kind, name=local.use, context=local.context, gpu_layers=local.gpu_layers)
            found[name] = Tier(name, kind, spec)
        else:
            problems += _not_usable(file, name, local.use, kinds)
    return found, problems


def _not_usable(file: SwarmFile, tier: str, wanted: str, kinds: Mapping[str, str]) -> Iterator[Problem]:
    path = ("models", tier) if isinstance(file.spec.models[tier], str) else ("models", tier, "use")
    if wanted in kinds:
        yield file.at(path, f"{quote(wanted)} is of kind {kinds[wanted]}, which no tier can use")
    else:
        yield file.at(path, f"no model {quote(wanted)} in the registry{did_you_mean(wanted, kinds)}")


def _remote(name: str, model: RemoteModel) -> ModelSpec:
    return ModelSpec(
        tier=name,
        kind="remote",
        name=model.model,
        base_url=model.base_url,
        key_env=model.api_key.name if model.api_key else None,
        input_micro_usd_per_mtok=micro_usd(model.price.input) if model.price else None,
        output_micro_usd_per_mtok=micro_usd(model.price.output) if model.price else None,
        timeout_s=model.timeout,
    )
