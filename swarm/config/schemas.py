"""JSON Schemas of outputs: are they sound, does a value satisfy one, does it have a field."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote

from swarm.config import bounded, patterns, quick
from swarm.config.patterns import pattern_problem
from swarm.config.problems import did_you_mean
from swarm.errors import quote

Schema = dict[str, Any]
MOST_STEPS = 20_000  # keywords looked at, in the check of one value
_MOST_STEPS_OF_SCHEMA = 200_000  # in the check of a schema itself, which takes some twenty for each part
_MOST_HOPS = 16  # of $ref to $ref
_MOST_PARTS = 64  # of a path that are looked at
_CIRCLE: Schema = {}  # where a chain of $ref that does not end leads


class Validator:
    """A compiled schema. Never fetches a `$ref` from anywhere.

    A check that takes more than `MOST_STEPS` is given up. With `each`, that is for all checks together, and so many
    more for each: for the examples of a file, which may be many.
    """

    def __init__(self, schema: Schema, each: int | None = None) -> None:
        from referencing import Registry

        self._unfit = _applied_problem(_applied(schema)[1])
        self._quick = None if self._unfit else quick.compiled(schema)
        self._validator = bounded.checker()(schema, registry=Registry())
        self._each = each
        self._steps = MOST_STEPS

    def problem(self, value: Any) -> str | None:
        """What keeps `value` from satisfying the schema, in one line; `None` if nothing does."""
        if self._quick is not None and self._quick.yes(value):
            return None
        return self._searched(value)

    def _searched(self, value: Any) -> str | None:
        from referencing.exceptions import Unresolvable

        if self._unfit:
            return f"the output schema cannot be used: {self._unfit}"
        left = 0
        try:
            error, left = bounded.within(self._steps, lambda: next(iter(self._validator.iter_errors(value)), None))
        except bounded.TooMuch:
            return f"the output schema takes more than {self._steps:,} steps to check; make it simpler"
        except RecursionError:
            return "the output is nested too deep to be checked, or its schema refers to itself without end"
        except Unresolvable:
            return "the output schema refers to nothing"
        except patterns.BadPattern as e:
            return f"the output schema cannot be used: {e}"
        finally:
            if self._each is not None:
                self._steps = min(MOST_STEPS, left + self._each)
        if error is None:
            return None
        where = ".".join(str(part) for part in error.absolute_path)
        what = " ".join(error.message.split())
        shown = what if len(what) <= 160 else what[:159] + "…"
        return f"output{'.' + where if where else ''} does not satisfy the schema: {shown}"


def schema_problem(schema: Schema) -> str | None:
    """What is wrong with an output schema: no JSON Schema, not of an object, or a `$ref` that leads out of it."""
    meta = bounded.checker()(bounded.checker().META_SCHEMA)
    roots, nodes = _applied(schema)
    errors = (error for root in roots for error in meta.iter_errors(root))
    try:
        error, _ = bounded.within(_MOST_STEPS_OF_SCHEMA, lambda: next(errors, None))
    except bounded.TooMuch:
        return f"takes more than {_MOST_STEPS_OF_SCHEMA:,} steps to check; make it simpler"
    except RecursionError:
        return "is nested too deep to be used"
    if error is not None:
        where = ".".join(str(part) for part in error.absolute_path)
        shown = " ".join(error.message.split())[:160]
        return f"is no JSON Schema (draft 2020-12): {where + ': ' if where else ''}{shown}"
    if problem := _applied_problem(nodes):
        return problem
    for ref in (ref for node in nodes for ref in _refs(node)):
        if not ref.startswith("#") or not _has(schema, ref):
            return f"$ref {quote(ref)} leads to nothing; refer to '#/$defs/…' of the same schema"
        if _follow(schema, {"$ref": ref}) is _CIRCLE:
            return f"$ref {quote(ref)} goes round in a circle"
    if schema and _follow(schema, schema).get("type") != "object":
        return "an output is an object; say type: object at the top"
    return None


def properties(schema: Schema) -> Schema:
    """The fields of an object's schema; empty when it names none."""
    found = _follow(schema, schema).get("properties")
    return found if isinstance(found, dict) else {}


def path_problem(schema: Schema, path: tuple[str, ...]) -> str | None:
    """Why an output of this schema can have no value at `path`; `None` if it can."""
    here = [schema]
    for i, part in enumerate(path[:_MOST_PARTS]):
        choices = list(_choices(schema, here))
        open_ended = any(_is_open(choice) for choice in choices)
        fields = {name: field for choice in choices for name, field in _fields(choice).items()}
        if part not in fields:
            if open_ended:
                return None
            whose = f"{quote('.'.join(path[:i]))} of the output" if i else "the output"
            return f"{whose} has no field {quote(part)}{did_you_mean(part, fields)}"
        here = [choice[part] for choice in map(_fields, choices) if isinstance(choice.get(part), dict)]
        if not here:
            return None
    return None


def _choices(root: Schema, nodes: Iterable[Schema]) -> Iterator[Schema]:
    """`nodes` and all that they may stand for instead, each once: they may refer to one another."""
    seen: set[int] = set()
    waiting = deque(nodes)
    while waiting:
        node = _follow(root, waiting.popleft())
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        for key in ("anyOf", "oneOf", "allOf"):
            waiting += [choice for choice in _listed(node.get(key)) if isinstance(choice, dict)]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_open(node: Schema) -> bool:
    """May it be an object with fields that the schema does not name?"""
    if any(key in node for key in ("anyOf", "oneOf", "allOf", "enum", "const")):
        return False
    kinds = node.get("type", "object")
    is_object = "object" in (kinds if isinstance(kinds, list) else [kinds])
    named = "properties" in node or "patternProperties" in node
    return is_object and bool(node.get("additionalProperties", not named))


def _fields(node: Schema) -> Schema:
    found = node.get("properties")
    return found if isinstance(found, dict) else {}


def _follow(root: Schema, node: Schema) -> Schema:
    for _ in range(_MOST_HOPS):
        ref = node.get("$ref")
        if not isinstance(ref, str):
            return node
        target = _target(root, ref)
        if target is None:
            return {}
        node = target
    return _CIRCLE


def _target(root: Schema, ref: str) -> Schema | None:
    here: Any = root
    for part in unquote(ref.removeprefix("#")).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        here = here.get(name) if isinstance(here, dict) else None
    return here if isinstance(here, dict) else None


def _has(root: Schema, ref: str) -> bool:
    return _target(root, ref) is not None and (ref == "#" or ref.startswith("#/"))


def _applied(schema: Schema) -> tuple[list[Schema], list[Schema]]:
    """The schema with the mere values in it that a `$ref` makes a schema of; and the objects of all these schemas."""
    roots: list[Schema] = []
    nodes: dict[int, Schema] = {}
    waiting = [schema]
    for root in waiting:  # which grows on the way
        if id(root) not in nodes:
            roots.append(root)
        refs = [ref for node in patterns.parts(root, nodes) for ref in _refs(node)]
        waiting += [target for ref in refs if (target := _target(schema, ref)) is not None]
    return roots, list(nodes.values())


def _applied_problem(nodes: list[Schema]) -> str | None:
    """What keeps these, of which the top comes first, from a check in counted steps; `None` if nothing does."""
    if any(map(_refs, nodes)) and any("$id" in node for node in nodes[1:]):
        return "has $id below the top, so that '#' in a $ref may mean another place than it says; leave that $id out"
    return pattern_problem(nodes)


def _refs(node: Schema) -> list[str]:
    return [ref for key in ("$ref", "$dynamicRef") if isinstance(ref := node.get(key), str)]
