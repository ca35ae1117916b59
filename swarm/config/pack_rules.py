"""What must hold of a pack's own rules: its free checks, what fields must equal, what a tool requires."""

from __future__ import annotations

from collections.abc import Iterator

from protocols.packs import Kind, Pack
from swarm.config.expressions import BadExpression, expression
from swarm.config.problems import Finding, did_you_mean
from swarm.config.schemas import path_problem, properties
from swarm.errors import quote

CHECKS: dict[str, tuple[Kind, ...]] = {"in_message": ("extract",), "arithmetic": ("extract", "generate")}
_CHECKED: tuple[Kind, ...] = ("extract", "generate")  # kinds whose answers can be wrong where code could tell


def check_rules(pack: Pack) -> Iterator[Finding]:
    """Findings with paths in the words of agent.yaml."""
    for field in ("checks", "equals"):
        if getattr(pack, field) and pack.kind not in _CHECKED:
            text = f"is for kinds {' and '.join(_CHECKED)}, and this is of kind {pack.kind}; delete it"
            yield Finding((field,), text, on_key=True)
    if pack.kind in _CHECKED:
        yield from _checks(pack)
        yield from _equals(pack)
    if pack.kind == "tool":
        yield from _requires(pack)


def _checks(pack: Pack) -> Iterator[Finding]:
    for i, check in enumerate(pack.checks):
        if check not in CHECKS:
            yield Finding(("checks", i), f"no check {quote(check)}{did_you_mean(check, CHECKS)}")
        elif pack.kind not in CHECKS[check]:
            kinds = " and ".join(CHECKS[check])
            text = f"{quote(check)} is for kind {kinds}, and this is of kind {pack.kind}; delete it"
            yield Finding(("checks", i), text)


def _equals(pack: Pack) -> Iterator[Finding]:
    fields = properties(pack.output_schema)
    for field, rule in pack.equals.items():
        if fields and field not in fields:
            text = f"the output has no field {quote(field)}{did_you_mean(field, fields)}"
            yield Finding(("equals", field), text, on_key=True)
        try:
            names = expression(rule).names
        except BadExpression as e:
            yield Finding(("equals", field), str(e))
            continue
        wrong = (why for path in sorted(names) if (why := path_problem(pack.output_schema, path)) is not None)
        yield from (Finding(("equals", field), why) for why in wrong)
        if (field,) in names:
            yield Finding(("equals", field), f"computes {quote(field)} from itself; name other fields")


def _requires(pack: Pack) -> Iterator[Finding]:
    for i, rule in enumerate(pack.requires):
        try:
            names = expression(rule).names
        except BadExpression as e:
            yield Finding(("requires", i), str(e))
            continue
        for name in sorted({path[0] for path in names}):
            if name not in pack.input:
                yield Finding(("requires", i), f"there is no input {quote(name)}{did_you_mean(name, pack.input)}")
