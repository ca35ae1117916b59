"""Plain scalars by the core schema of YAML 1.2 (§10.3.2): `no`, `on` and `12:30` are text, `010` is ten."""

from __future__ import annotations

import math
import re

Scalar = None | bool | int | float | str

_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL_OR_HEX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, Scalar] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True)
_WORDS |= dict.fromkeys(("false", "False", "FALSE"), False)

_MOST_DIGITS = 32
_INT_RANGE = range(-(2**63), 2**63)


class NotFinite(ValueError):
    """A number that no computer word holds: infinite, not a number, or far too long."""


def resolve(text: str) -> Scalar:
    """The value of an unquoted scalar. Raises `NotFinite` for `.inf`, `.nan`, `1e999` and integers beyond 64 bits."""
    if text in _WORDS:
        return _WORDS[text]
    if _INFINITE.fullmatch(text):
        raise NotFinite(text)
    if _INT.fullmatch(text) or _OCTAL_OR_HEX.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise NotFinite(text)
        return number
    return text


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise NotFinite(text)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    number = int(text, base)
    if number not in _INT_RANGE:
        raise NotFinite(text)
    return number
