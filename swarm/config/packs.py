"""What must hold inside one specialist, whether it came from a pack's folder or stands in a swarm file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from protocols.packs import Kind, Pack
from swarm.config.pack_rules import check_rules
from swarm.config.problems import Finding, KeyPath, did_you_mean
from swarm.config.schemas import Validator, properties, schema_problem
from swarm.config.values import IDENTIFIER
from swarm.errors import quote

IDEMPOTENCY_KEY = "idempotency_key"  # the keyword under which a tool gets it
MEMORY = "memory"  # the input under which a step's notes come, beside the pack's own
_ONLY_FOR: dict[str, Kind] = {
    "labels": "classify",
    "none_label": "classify",
    "patterns": "extract",
    "templates": "generate",
    "tools": "tool",
    "idempotent": "tool",
    "requires": "tool",
}
_NEEDED: dict[Kind, tuple[str, ...]] = {
    "classify": ("labels",),
    "extract": ("output_schema",),
    "generate": (),
    "tool": ("tools", "output_schema"),
}
_PLACE = re.compile(r"\{\{|\}\}|\{[A-Za-z_][A-Za-z0-9_-]*(\|[^{}]*)?\}")
_MOST_EXAMPLES_REPORTED = 10
_STEPS_PER_EXAMPLE = 500  # keywords of the output schema to be looked at, on average


def default_schema(kind: Kind, labels: dict[str, str]) -> dict[str, Any]:
    """The output schema a kind has when none is given; empty for kinds that must name their own."""
    match kind:
        case "classify":
            return _record({"label": {"enum": list(labels)}})
        case "generate":
            return _record({"text": {"type": "string"}})
        case "extract" | "tool":
            return {}


def check_pack(pack: Pack) -> Iterator[Finding]:
    """Findings with paths in the words of agent.yaml; ("examples", i) is the i-th example, from 0."""
    for field in _NEEDED[pack.kind]:
        if not getattr(pack, field):
            yield Finding((field,), f"is missing; a specialist of kind {pack.kind} needs it", on_key=True)
    for field, kind in _ONLY_FOR.items():
        if getattr(pack, field) and pack.kind != kind:
            yield Finding((field,), f"is for kind {kind}, and this is of kind {pack.kind}; delete it", on_key=True)
    yield from _inputs(pack)
    yield from _labels(pack)
    yield from _patterns(pack)
    yield from _templates(pack)
    yield from _effects(pack)
    problem = schema_problem(pack.output_schema)
    if problem:
        yield Finding(("output_schema",), problem)
    else:
        yield from check_rules(pack)
        yield from _examples(pack)


def _record(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def _inputs(pack: Pack) -> Iterator[Finding]:
    for i, name in enumerate(pack.input):
        if not IDENTIFIER.fullmatch(name):
            yield Finding(("input", i), f"{quote(name)} is no name for an input; use letters, digits and '_'")
        elif name in pack.input[:i]:
            yield Finding(("input", i), f"{quote(name)} is there twice; delete one")


def _labels(pack: Pack) -> Iterator[Finding]:
    if pack.kind != "classify" or not pack.labels:
        return
    if len(pack.labels) < 2:
        yield Finding(("labels",), "has one label; there is nothing to choose, name two or more")
    if pack.none_label is not None and pack.none_label not in pack.labels:
        text = f"{quote(pack.none_label)} is none of the labels{did_you_mean(pack.none_label, pack.labels)}"
        yield Finding(("none_label",), text)
    known = properties(pack.output_schema).get("label")
    if not isinstance(known, dict):
        yield Finding(("output_schema",), "a classify specialist answers {label: …}; give it a property 'label'")
    elif isinstance(known.get("enum"), list) and set(map(str, known["enum"])) != set(pack.labels):
        differing = sorted(set(map(str, known["enum"])) ^ set(pack.labels))
        yield Finding(("output_schema",), f"its labels differ from labels: {', '.join(differing[:5])}; make them alike")


def _patterns(pack: Pack) -> Iterator[Finding]:
    fields = properties(pack.output_schema)
    for field, patterns in pack.patterns.items():
        if pack.kind == "extract" and fields and field not in fields:
            text = f"the output has no field {quote(field)}{did_you_mean(field, fields)}"
            yield Finding(("patterns", field), text, on_key=True)
        for i, pattern in enumerate(patterns):
            problem = _pattern_problem(pattern)
            if problem:
                yield Finding(("patterns", field, i), problem)


def _pattern_problem(pattern: str) -> str | None:
    try:
        groups = re.compile(pattern).groupindex
    except (re.error, RecursionError, OverflowError) as e:
        return f"is no regular expression: {e}"
    return None if "value" in groups else "has no group named value; put what is wanted into (?P<value>…)"


def _templates(pack: Pack) -> Iterator[Finding]:
    templates = pack.templates
    if templates is None:
        return
    if templates.by not in pack.input:
        text = f"{quote(templates.by)} is no input{did_you_mean(templates.by, pack.input)}"
        yield Finding(("templates", "by"), text)
    texts: list[tuple[KeyPath, str]] = [(("templates", "choose", key), text) for key, text in templates.choose.items()]
    for path, text in [*texts, (("templates", "default"), templates.default)]:
        rest = _PLACE.sub("", text)
        if "{" in rest or "}" in rest:
            yield Finding(path, "has a brace that is no place; write {name} or {name|fallback}, and {{ for a brace")


def _effects(pack: Pack) -> Iterator[Finding]:
    if pack.effects == "write" and pack.kind != "tool":
        yield Finding(("effects",), f"is for kind tool, and this is of kind {pack.kind}; delete it", on_key=True)
    if pack.idempotent and pack.effects == "read" and pack.kind == "tool":
        yield Finding(("idempotent",), "says something of a write; add effects: write, or delete it", on_key=True)
    if IDEMPOTENCY_KEY in pack.input and pack.kind == "tool":
        text = f"{quote(IDEMPOTENCY_KEY)} is given to a tool that writes; choose another name for the input"
        yield Finding(("input", pack.input.index(IDEMPOTENCY_KEY)), text)


def _examples(pack: Pack) -> Iterator[Finding]:
    validator = Validator(pack.output_schema, each=_STEPS_PER_EXAMPLE)
    reported = 0
    for i, example in enumerate(pack.examples):
        if reported == _MOST_EXAMPLES_REPORTED:
            yield Finding(("examples",), f"has more than {reported} wrong examples; the first are shown")
            return
        problem = _example_problem(pack, example.input, example.output, validator)
        if problem:
            reported += 1
            yield Finding(("examples", i), problem)


def _example_problem(pack: Pack, given: dict[str, Any], output: dict[str, Any], validator: Validator) -> str | None:
    for name in given:
        if name not in pack.input:
            return f"no input {quote(name)}{did_you_mean(name, pack.input)}"
    for name in pack.input:
        if name not in given:
            return f"its input {quote(name)} is missing"
    label = output.get("label")
    if pack.kind == "classify" and pack.labels and isinstance(label, str) and label not in pack.labels:
        return f"{quote(label)} is none of the labels{did_you_mean(label, pack.labels)}"
    return validator.problem(output)
