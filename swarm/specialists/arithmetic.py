"""Sums that a text states, re-computed exactly: `12.50 * 3 = 37.50`. What cannot be read for certain is passed over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from swarm.config.expressions import Unknown, expression
from swarm.config.numbers import decimal

MOST_TOKENS = 40  # of one sum
_TOKEN = re.compile(
    r"(?P<number>\d(?:[\d.,']*\d)?)|(?P<operator>[-+*/×·÷−]|(?<=[\d\s)])x(?=[\s\d(]))|(?P<bracket>[()])|(?P<equals>=)"
    r"|(?P<space>[\s€$£¥]+)|(?P<other>[^\d\s=()€$£¥×·÷−*/+-]+?)",
)
_PLAIN = {"×": "*", "·": "*", "x": "*", "÷": "/", "−": "-"}
# A right side that goes on after its first number.
_CONTINUES = re.compile(r"\s{0,3}[-+*/×·÷−(%^]|\w|[.,]\d")


Token = tuple[str, str, int]  # kind, text, place


def wrong_sums(text: str) -> list[str]:
    """The statements of the text that are not so: `12.50 * 3 = 38.00`. A result may be rounded as it is written."""
    if "=" not in text:
        return []
    tokens = [(m.lastgroup or "", m.group(), m.start()) for m in _TOKEN.finditer(text)]
    return [shown for shown, right in _stated(text, tokens) if not right]


def _stated(text: str, tokens: list[Token]) -> Iterator[tuple[str, bool]]:
    """Every statement that can be read, and whether it is so."""
    for at, (kind, _, _) in enumerate(tokens):
        left = _left(text, tokens, at) if kind == "equals" else None
        right = _right(text, tokens, at) if left else None
        if left is None or right is None:
            continue
        try:
            value = expression(left).value({})
        except (ValueError, Unknown):
            continue
        places = len(right.partition(".")[2])
        is_so = abs(value - Fraction(right)) <= Fraction(1, 2 * 10**places)
        yield f"{left} = {right}", is_so


def _left(text: str, tokens: list[Token], at: int) -> str | None:
    """The sum before the sign at place `at`, with plain signs and numbers; None where there is none."""
    start = at
    while start > 0 and tokens[start - 1][0] in ("number", "operator", "bracket", "space"):
        start -= 1
    run = [token for token in tokens[start:at] if token[0] != "space"]
    if not 3 <= len(run) <= MOST_TOKENS or run[0][0] == "operator" or _touches(text, run[0][2]):
        return None
    parts = []
    for kind, said, _ in run:
        plain = _number(said) if kind == "number" else _PLAIN.get(said, said)
        if plain is None:
            return None
        parts.append(plain)
    return " ".join(parts) if any(kind == "operator" for kind, _, _ in run) else None


def _right(text: str, tokens: list[Token], at: int) -> str | None:
    """The number after the sign at place `at`; None where something else, or more, stands there."""
    rest = [token for token in tokens[at + 1 : at + 5] if token[0] != "space"]
    sign = ""
    if rest and rest[0][1] in ("-", "−"):
        sign, rest = "-", rest[1:]
    if not rest or rest[0][0] != "number" or _CONTINUES.match(text, rest[0][2] + len(rest[0][1])):
        return None
    plain = _number(rest[0][1])
    return sign + plain if plain is not None else None


def _number(text: str) -> str | None:
    """As digits; None for what only looks like a number: `05` is part of a date or an article's number."""
    plain = decimal(text)
    return None if plain is None or re.match(r"0\d", plain) else plain


def _touches(text: str, place: int) -> bool:
    """Whether something stands right before this place that may belong to the number there."""
    return place > 0 and (text[place - 1].isalnum() or text[place - 1] in "_.,#%^")
