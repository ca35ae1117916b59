"""Expressions over named values, as a pack states its rules: `price * quantity`, `amount <= 500 and order != null`.

They are read by Python's own grammar, of which little is allowed, and computed here: nothing of them is run as a
program. Numbers are exact: 0.1 is a tenth.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import floor
from typing import Any

from swarm.config.numbers import exact

LONGEST = 300  # characters
MOST_NODES = 100
MOST_PLACES = 12  # of `round`
WORDS = {"true": True, "false": False, "null": None}

_SUMS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_ORDERS: dict[type[ast.cmpop], Callable[[Fraction, Fraction], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: dict[str, tuple[int, int]] = {"abs": (1, 1), "round": (1, 2), "min": (2, 8), "max": (2, 8), "len": (1, 1)}
_KNOWN = (
    f"use names, numbers, texts, + - * /, comparisons, in, and, or, not, true, false, null, and {', '.join(_FUNCTIONS)}"
)


class BadExpression(ValueError):
    """The text is no expression that is understood; the message is the text of a problem."""


class Unknown(ValueError):
    """An expression has no value here: something in it is missing, or is no number where one is needed."""


@dataclass(frozen=True, slots=True)
class Expression:
    """`names`: the values that it needs, each by its path: `lines.count` is ("lines", "count")."""

    text: str
    names: frozenset[tuple[str, ...]]
    _body: ast.expr

    def value(self, values: Mapping[str, Any]) -> Any:
        """A `Fraction`, a text, a bool or None. Raises `Unknown`."""
        return _value(self._body, values)


@lru_cache(maxsize=1024)
def expression(text: str) -> Expression:
    """What the text says, as far as it is understood. Raises `BadExpression`."""
    if len(text) > LONGEST:
        raise BadExpression(f"has {len(text):,} characters, an expression has at most {LONGEST}; make it shorter")
    try:
        body = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise BadExpression(f"is no expression; {_KNOWN}") from None
    if sum(1 for _ in ast.walk(body)) > MOST_NODES:
        raise BadExpression(f"has more than {MOST_NODES} parts; make it shorter")
    names: set[tuple[str, ...]] = set()
    _look(body, text, names)
    return Expression(text, frozenset(names), body)


# --- reading ----------------------------------------------------------------------------------------------------


def _look(node: ast.expr, text: str, names: set[tuple[str, ...]]) -> None:
    """Collect the names below `node`. Raises `BadExpression` for what is not allowed."""
    match node:
        case ast.Name() | ast.Attribute() if (path := _path(node)) is not None:
            if path[0] not in WORDS:
                names.add(path)
            return
        case ast.Constant(value=bool() | None):
            raise BadExpression("has True, False or None; write true, false or null")
        case ast.Constant(value=int() | float() | str()):
            return
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _SUMS:
            below = [left, right]
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            below = [operand]
        case ast.BoolOp(values=values):
            below = values
        case ast.Compare(left=left, ops=ops, comparators=others) if all(map(_compares, ops)):
            below = [left, *others]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            below = items
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if _takes(name, len(args)):
            below = args
        case _:
            shown = " ".join((ast.get_source_segment(text.strip(), node) or text).split())[:60]
            raise BadExpression(f"does not understand {shown!r}; {_KNOWN}")
    for each in below:
        _look(each, text, names)


def _path(node: ast.expr) -> tuple[str, ...] | None:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return (node.id, *reversed(parts)) if isinstance(node, ast.Name) else None


def _compares(op: ast.cmpop) -> bool:
    return type(op) in _ORDERS or isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn)


def _takes(name: str, n: int) -> bool:
    least, most = _FUNCTIONS.get(name, (1, 0))
    return least <= n <= most


# --- computing --------------------------------------------------------------------------------------------------


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name() | ast.Attribute():
            return _named(_path(node) or (), values)
        case ast.Constant(value=value):
            return value if isinstance(value, str) else Fraction(str(value))
        case ast.BinOp(left=left, op=op, right=right):
            return _sum(op, _number(left, values), _number(right, values))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand, values)
        case ast.UnaryOp(operand=operand):
            return not _truth(operand, values)
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_truth(part, values) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_truth(part, values) for part in parts)
        case ast.Compare(left=left, ops=ops, comparators=others):
            pairs = zip([left, *others], ops, others, strict=False)
            return all(_compared(one, op, other, values) for one, op, other in pairs)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, values) for item in items]
        case ast.Call(func=ast.Name(id=name), args=args):
            return _called(name, args, values)
    raise AssertionError(f"{ast.dump(node)} was let in")


def _named(path: tuple[str, ...], values: Mapping[str, Any]) -> Any:
    if path[0] in WORDS and len(path) == 1:
        return WORDS[path[0]]
    here: Any = values
    for part in path:
        here = here.get(part) if isinstance(here, Mapping) else None
    return here


def _number(node: ast.expr, values: Mapping[str, Any]) -> Fraction:
    value = exact(_value(node, values))
    if value is None:
        raise Unknown(f"{ast.unparse(node)} is no number")
    return value


def _sum(op: ast.operator, one: Fraction, other: Fraction) -> Fraction:
    if isinstance(op, ast.Div) and other == 0:
        raise Unknown("something is divided by 0")
    return _SUMS[type(op)](one, other)


def _truth(node: ast.expr, values: Mapping[str, Any]) -> bool:
    value = _value(node, values)
    if not isinstance(value, bool):
        raise Unknown(f"{ast.unparse(node)} is neither true nor false")
    return value


def _compared(one: ast.expr, op: ast.cmpop, other: ast.expr, values: Mapping[str, Any]) -> bool:
    match op:
        case ast.Eq():
            return same(_value(one, values), _value(other, values))
        case ast.NotEq():
            return not same(_value(one, values), _value(other, values))
        case ast.In() | ast.NotIn():
            found = _is_in(_value(one, values), _value(other, values))
            return found == isinstance(op, ast.In)
    return _ORDERS[type(op)](_number(one, values), _number(other, values))


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same number, if both are numbers, or else the same."""
    a, b = exact(one), exact(other)
    return a == b if a is not None and b is not None else bool(type(one) is type(other) and one == other)


def _is_in(one: Any, whole: Any) -> bool:
    match whole:
        case str():
            return isinstance(one, str) and one in whole
        case list() | tuple():
            return any(same(one, each) for each in whole)
    raise Unknown("in looks into a text or a list only")


def _called(name: str, args: list[ast.expr], values: Mapping[str, Any]) -> Fraction:
    if name == "len":
        value = _value(args[0], values)
        if not isinstance(value, str | list | tuple | Mapping):
            raise Unknown(f"{ast.unparse(args[0])} has no length")
        return Fraction(len(value))
    numbers = [_number(arg, values) for arg in args]
    match name:
        case "abs":
            return abs(numbers[0])
        case "round":
            return _rounded(numbers[0], numbers[1] if len(numbers) > 1 else Fraction(0))
        case "min":
            return min(numbers)
    return max(numbers)


def _rounded(value: Fraction, places: Fraction) -> Fraction:
    """Halves go away from 0, as in accounts."""
    if places.denominator != 1 or not 0 <= places <= MOST_PLACES:
        raise Unknown(f"round takes 0 to {MOST_PLACES} places")
    scale = 10 ** int(places)
    whole = floor(abs(value) * scale + Fraction(1, 2))
    return Fraction(whole if value >= 0 else -whole, scale)
