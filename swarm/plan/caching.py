"""From a step's `cache` to which earlier answers it uses again."""

from __future__ import annotations

from protocols.packs import Pack
from swarm.config import SwarmFile
from swarm.config.problems import Problem
from swarm.config.schema import CachePart, Step
from swarm.errors import quote
from swarm.plan.plan import NO_CACHE, Caching


def caching(file: SwarmFile, name: str, step: Step, pack: Pack, *, embedder: bool) -> tuple[Caching, list[Problem]]:
    """What the step says, else what the file says of all steps but tools. `embedder`: models has one."""
    said = step.cache
    place = ("steps", name, "cache")
    if said not in (None, "off") and pack.effects == "write":
        text = (
            f"specialist {quote(step.specialist)} writes, and a call that is not made changes nothing; write cache: off"
        )
        return NO_CACHE, [file.at(place, text)]
    if said is None:
        used = file.spec.cache == "exact" and pack.kind != "tool"
        return (Caching("exact") if used else NO_CACHE), []
    if not isinstance(said, CachePart):
        return (Caching("exact") if said == "exact" else NO_CACHE), []
    if said.semantic is None:
        return Caching("exact", ttl_s=said.ttl), []
    problems = []
    if pack.kind == "tool":
        text = "a tool's answer is not used again for an input that is only similar; write cache: exact, or off"
        problems.append(file.at((*place, "semantic"), text))
    elif not embedder:
        text = "compares inputs by embedding, and models has none for it; add head: all-MiniLM-L6-v2"
        problems.append(file.at((*place, "semantic"), text))
    return Caching("semantic", said.semantic.error, said.semantic.confidence, said.ttl), problems
