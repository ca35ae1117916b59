"""From a step's `memory` to the notes that it reads and writes, and who summarises them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from protocols.packs import Pack
from swarm.config import SwarmFile
from swarm.config.packs import MEMORY
from swarm.config.problems import Problem, did_you_mean
from swarm.config.references import INPUT, BadReference, Binding, Literal, parse_binding, references
from swarm.config.schema import MemoryPart, Step
from swarm.config.schemas import path_problem
from swarm.errors import quote
from swarm.plan.inputs import Bound
from swarm.plan.plan import Caching, PlannedStep, Remembering, Tier

Packs = Mapping[str, Pack]
Ladders = Mapping[str, tuple[Tier, ...]]


def remembering(
    file: SwarmFile, name: str, step: Step, bound: Bound, cache: Caching, packs: Packs, ladders: Ladders
) -> tuple[Remembering | None, list[Problem]]:
    """What a step remembers, and what is wrong with it. `packs`, `ladders`: by specialist, those that are sound."""
    part = step.memory
    if part is None:
        return None, []
    key, problems = _key(file, name, step, part, bound, packs)
    problems += _misuse(file, name, step, part, cache, packs)
    summariser = None
    if part.summarise is not None:
        summariser, more = _summariser(file, name, part.summarise, packs, ladders)
        problems += more
    if problems or key is None:
        return None, problems
    return Remembering(key, part.tokens, part.read, part.write, summariser), []


def _key(
    file: SwarmFile, name: str, step: Step, part: MemoryPart, bound: Bound, packs: Packs
) -> tuple[Binding | None, list[Problem]]:
    place = ("steps", name, "memory", "key")
    try:
        key = parse_binding(part.key)
    except BadReference as e:
        return None, [file.at(place, str(e))]
    problems = []
    for ref in references(key):
        if ref.source != INPUT and ref.source not in bound.needs:
            known = [INPUT, *sorted(bound.needs)]
            text = f"{ref}: the step reads nothing of {quote(ref.source)}{did_you_mean(ref.source, known)}"
            problems.append(file.at(place, text))
            continue
        other = packs.get(file.spec.steps[ref.source].specialist) if ref.source in file.spec.steps else None
        if other is not None and (problem := path_problem(other.output_schema, ref.path)):
            problems.append(file.at(place, f"{ref}: {problem}"))
    return key, problems


def _misuse(
    file: SwarmFile, name: str, step: Step, part: MemoryPart, cache: Caching, packs: Packs
) -> Iterator[Problem]:
    place = ("steps", name, "memory")
    if not part.read and not part.write:
        yield file.at(place, "neither reads nor writes; delete it, or one of the two", on_key=True)
    if step.specialist in packs and MEMORY in packs[step.specialist].input:
        text = f"specialist {quote(step.specialist)} has an input 'memory' of its own; choose another name for that"
        yield file.at(place, text, on_key=True)
    if part.read and cache.kind == "semantic":
        text = "does not go with a semantic cache: a similar input of another key has other notes; write cache: exact"
        yield file.at(place, text, on_key=True)
    if part.summarise is not None and not part.write:
        yield file.at((*place, "summarise"), "is done when a note is written, and this step writes none", on_key=True)


def _summariser(
    file: SwarmFile, name: str, wanted: str, packs: Packs, ladders: Ladders
) -> tuple[PlannedStep | None, list[Problem]]:
    """A specialist that turns notes into one, as a step that stands in no graph."""
    place = ("steps", name, "memory", "summarise")
    if wanted not in file.spec.specialists:
        return None, [file.at(place, f"no specialist {quote(wanted)}{did_you_mean(wanted, file.spec.specialists)}")]
    pack, ladder = packs.get(wanted), ladders.get(wanted)
    if pack is None or not ladder:
        return None, []  # what is wrong with it has been said
    if pack.kind != "generate" or len(pack.input) != 1:
        text = f"specialist {quote(wanted)} is no summariser; name one of kind generate with one input, the notes"
        return None, [file.at(place, text)]
    inputs: dict[str, Binding] = {pack.input[0]: Literal("")}
    return PlannedStep(f"{name}.memory", wanted, pack, ladder, inputs, frozenset(), 0.0), []
