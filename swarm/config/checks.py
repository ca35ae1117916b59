"""What can be wrong between the parts of a swarm file, seen without packs and without the model registry."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from swarm.config.problems import Finding, KeyPath, did_you_mean
from swarm.config.references import INPUT, BadReference, Ref, parse_binding, references
from swarm.config.values import BUILT_IN_TIERS, PERSON
from swarm.errors import quote

OVERRIDES = ("description", "examples", "instructions", "labels", "max_tokens")
FROM_PACK = {
    "kind",
    "input",
    "none_label",
    "patterns",
    "checks",
    "equals",
    "requires",
    "templates",
    "output_schema",
    "tools",
    "effects",
    "idempotent",
}


@dataclass(frozen=True, slots=True)
class Raw:
    """The file's plain values, and safe ways into them: whatever has the wrong type is looked at as empty."""

    value: Any

    def mapping(self, *path: str) -> dict[str, Any]:
        here = self.value
        for part in path:
            here = here.get(part) if isinstance(here, dict) else None
        return here if isinstance(here, dict) else {}

    def names_known(self, section: str) -> bool:
        """Is the section there as a mapping, or left out on purpose (no key looks like it, misspelt)?"""
        if isinstance(self.value, dict) and section not in self.value:
            return not difflib.get_close_matches(section, [key[:64] for key in self.value], cutoff=0.7)
        return isinstance(self.value, dict) and isinstance(self.value[section], dict)


def check(value: Any) -> Iterator[Finding]:
    """Findings about a tree of plain values; parts of the wrong type are passed over, others report those."""
    raw = Raw(value)
    yield from _not_empty(raw)
    models = set(raw.mapping("models")) if raw.names_known("models") else None
    for name, specialist in raw.mapping("specialists").items():
        if isinstance(specialist, dict):
            yield from (f.under("specialists", name) for f in _specialist(specialist, models))
    needs: dict[str, dict[str, KeyPath]] = {}
    for name, step in raw.mapping("steps").items():
        if isinstance(step, dict):
            yield from _step(name, step, raw)
            needs[name] = dict(_needs(name, step, set(raw.mapping("steps"))))
    yield from _cycles(needs)
    if raw.mapping("escalation").get("explore") and not raw.mapping("budget", "explore"):
        text = "needs a limit of its own; add budget: {explore: {usd: …}}"
        yield Finding(("escalation", "explore"), text)
    runtime = raw.mapping("runtime")
    if "address" in runtime and runtime.get("kind") != "ray":
        yield Finding(("runtime", "address"), "only kind: ray has an address; set the kind or delete this", on_key=True)


def _not_empty(raw: Raw) -> Iterator[Finding]:
    for section in ("specialists", "steps"):
        if isinstance(raw.value, dict) and raw.value.get(section) == {}:
            yield Finding((section,), f"is empty; a swarm has at least one {section.removesuffix('s')}")


def _specialist(specialist: dict[str, Any], models: set[str] | None) -> Iterator[Finding]:
    keys = set(specialist)
    if "pack" in keys:
        for key in sorted(keys & FROM_PACK):
            allowed = ", ".join(OVERRIDES)
            yield Finding((key,), f"comes from the pack; on top of one there is {allowed}", on_key=True)
    elif "kind" not in keys:
        yield Finding((), "has neither pack nor kind; name a pack, or say what kind of specialist it is", on_key=True)
    if "tiers" in keys and "model" in keys:
        yield Finding(("model",), "is the short form of tiers with one entry; keep one of the two", on_key=True)
    elif not keys & {"tiers", "model"} and "kind" in keys and specialist["kind"] != "tool":
        yield Finding((), "has no tiers; name who answers, cheapest first: tiers: [head, person]", on_key=True)
    yield from _tiers(specialist, models)


def _tiers(specialist: dict[str, Any], models: set[str] | None) -> Iterator[Finding]:
    known = (models or set()) | set(BUILT_IN_TIERS)
    tiers = specialist.get("tiers")
    named: list[tuple[KeyPath, Any]] = [(("model",), specialist.get("model"))]
    if isinstance(tiers, list):
        named = [(("tiers", i), tier) for i, tier in enumerate(tiers)]
    seen: set[str] = set()
    for place, tier in named:
        if not isinstance(tier, str) or not tier.strip():
            continue
        if tier not in known and models is not None:
            yield Finding(place, f"no model {quote(tier)} in models{did_you_mean(tier, known)}")
        elif tier in seen:
            yield Finding(place, f"{quote(tier)} is there twice; delete one")
        elif PERSON in seen:
            yield Finding(place, f"{quote(tier)} comes after 'person' and is never asked; put 'person' last")
        seen.add(tier)


def _step(name: str, step: dict[str, Any], raw: Raw) -> Iterator[Finding]:
    specialist, specialists = step.get("specialist"), raw.mapping("specialists")
    is_name = isinstance(specialist, str) and specialist.strip() and raw.names_known("specialists")
    if isinstance(specialist, str) and is_name and specialist not in specialists:
        text = f"no specialist {quote(specialist)}{did_you_mean(specialist, specialists)}"
        yield Finding(("steps", name, "specialist"), text)
    steps = raw.mapping("steps")
    for key, value in Raw(step).mapping("input").items():
        place = ("steps", name, "input", key)
        try:
            refs = references(parse_binding(value))
        except BadReference as e:
            yield Finding(place, str(e))
            continue
        for ref in refs:
            if ref.source != INPUT and ref.source not in steps:
                yield Finding(place, f"{ref}: no step {quote(ref.source)}{did_you_mean(ref.source, [INPUT, *steps])}")


def _needs(name: str, step: dict[str, Any], steps: set[str]) -> Iterator[tuple[str, KeyPath]]:
    for key, value in Raw(step).mapping("input").items():
        for ref in _references(value):
            if ref.source in steps and ref.source != INPUT:
                yield ref.source, ("steps", name, "input", key)


def _references(value: Any) -> tuple[Ref, ...]:
    try:
        return references(parse_binding(value))
    except BadReference:
        return ()


def _cycles(needs: dict[str, dict[str, KeyPath]]) -> Iterator[Finding]:
    """One finding for each circle, at the reference that closes it. Iterative: a chain may be thousands long."""
    done: set[str] = set()
    for start, wanted in needs.items():
        trail, on_trail = [(start, iter(wanted.items()))], {start: 0}
        while trail and start not in done:
            step, rest = trail[-1]
            needed, place = next(rest, (None, ()))
            if needed is None:
                trail.pop()
                del on_trail[step]
                done.add(step)
            elif needed in on_trail:
                circle = [name for name, _ in trail[on_trail[needed] :]] + [needed]
                yield Finding(place, f"waits for itself: {' → '.join(circle)}; break the circle")
            elif needed not in done and needed in needs:
                on_trail[needed] = len(trail)
                trail.append((needed, iter(needs[needed].items())))
