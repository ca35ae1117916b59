"""From the LoRA files that a specialist names to the tiers that they apply to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from protocols.control import Adapter
from swarm.config import SwarmFile, paths
from swarm.config.problems import KeyPath, Problem, did_you_mean
from swarm.config.specialist import Specialist
from swarm.errors import ModelError, quote
from swarm.models.files import sha256_of
from swarm.models.lora import read_adapter
from swarm.plan.plan import Tier


@dataclass(slots=True)
class AdapterReader:
    """Reads the adapters of one specialist and collects what is wrong with them."""

    file: SwarmFile
    name: str
    spec: Specialist
    problems: list[Problem] = field(default_factory=list)
    _found: dict[str | None, Adapter] = field(default_factory=dict)  # by tier; `None`: its only local model

    def read(self) -> None:
        """Look at every file that is named."""
        for tier, place, relative in self._named():
            try:
                path = paths.inside(self.file.folder, relative)
                if problem := _fault(path, relative):
                    self._problem(place, problem)
                else:
                    self._found[tier] = Adapter(path=str(path), sha256=sha256_of(path))
            except (paths.Outside, OSError) as e:
                self._problem(place, str(e))

    def on(self, ladder: Sequence[Tier], *, whole: bool) -> tuple[Tier, ...]:
        """The ladder with the adapters on its tiers. `whole`: it lacks no tier that the file names."""
        local = [tier for tier in ladder if tier.kind == "small"]
        given = {tier: adapter for tier, adapter in self._found.items() if tier is not None}
        if isinstance(self.spec.adapter, str) and whole:
            if len(local) == 1 and None in self._found:
                given[local[0].name] = self._found[None]
            elif not local:
                self._problem((), "is for a local model, and no tier here is one; add one to tiers, or delete this")
            elif len(local) > 1:
                shown = ", ".join(f"{tier.name}: FILE" for tier in local)
                self._problem((), f"fits one model, and several tiers are local ones; write adapter: {{{shown}}}")
        elif whole:
            self._strangers(ladder)
        return tuple(dataclasses.replace(tier, adapter=given.get(tier.name)) for tier in ladder)

    def _strangers(self, ladder: Sequence[Tier]) -> None:
        kinds = {tier.name: tier.kind for tier in ladder}
        for name, place, _ in self._named():
            if name not in kinds:
                local = [tier.name for tier in ladder if tier.kind == "small"]
                self._problem(place, f"is none of its tiers{did_you_mean(str(name), local)}", on_key=True)
            elif kinds[name] != "small":
                text = f"is a tier of kind {kinds[name]}; only a local language model takes an adapter, delete this"
                self._problem(place, text, on_key=True)

    def _named(self) -> list[tuple[str | None, KeyPath, str]]:
        """Tier, place below `adapter`, and file."""
        match self.spec.adapter:
            case None:
                return []
            case str(path):
                return [(None, (), path)]
            case by_tier:
                return [(tier, (tier,), path) for tier, path in by_tier.items()]

    def _problem(self, place: KeyPath, text: str, on_key: bool = False) -> None:
        self.problems.append(self.file.at(("specialists", self.name, "adapter", *place), text, on_key))


def _fault(path: Path, shown: str) -> str | None:
    """Why the file at `path` cannot be an adapter; whether it fits its model is known when both are loaded."""
    try:
        read_adapter(path)
    except ModelError as e:
        return str(e).replace(str(path), quote(shown))
    return None
