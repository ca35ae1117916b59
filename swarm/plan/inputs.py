"""A step's inputs: do they fit what the specialist reads, and do their references lead to something?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from protocols.packs import Pack
from swarm.config import SwarmFile
from swarm.config.problems import Problem, did_you_mean
from swarm.config.references import INPUT, BadReference, Binding, parse_binding, references
from swarm.config.schema import Step
from swarm.config.schemas import path_problem
from swarm.errors import quote


@dataclass(frozen=True, slots=True)
class Bound:
    """Bindings by input name, and the steps they read."""

    inputs: dict[str, Binding]
    needs: frozenset[str]


def bind(file: SwarmFile, name: str, step: Step, packs: Mapping[str, Pack]) -> tuple[Bound, list[Problem]]:
    """The bindings of a step and their problems. `packs`: step name -> pack, of the steps whose pack is sound."""
    place = ("steps", name, "input")
    bound: dict[str, Binding] = {}
    needs: set[str] = set()
    problems = list(_names(file, name, step, packs[name])) if name in packs else []
    for key, value in step.input.items():
        try:
            bound[key] = parse_binding(value)
        except BadReference:
            continue  # config has said so
        for ref in references(bound[key]):
            if ref.source == INPUT:
                continue
            needs.add(ref.source)
            problem = path_problem(packs[ref.source].output_schema, ref.path) if ref.source in packs else None
            if problem:
                problems.append(file.at((*place, key), f"{ref}: {problem}"))
    return Bound(bound, frozenset(needs)), problems


def _names(file: SwarmFile, name: str, step: Step, pack: Pack) -> Iterator[Problem]:
    place = ("steps", name, "input")
    for key in step.input:
        if key not in pack.input:
            text = f"is no input of specialist {quote(step.specialist)}{did_you_mean(key, pack.input)}"
            yield file.at((*place, key), text, on_key=True)
    for key in pack.input:
        if key not in step.input:
            text = f"is missing; specialist {quote(step.specialist)} reads {', '.join(pack.input)}"
            yield file.at((*place, key), text, on_key=True)
