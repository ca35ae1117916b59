"""Numbers as people write them, read exactly: `12.50`, `1,299.00`, `1.299,00 €`. What could be two numbers is none."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

LONGEST = 40  # characters of a number
MOST = 1e30
_CURRENCY = r"(?:[€$£¥]|[A-Z]{3}(?![A-Za-z]))"
_WRITTEN = re.compile(rf"{_CURRENCY}?\s?([-−+]?)\s?{_CURRENCY}?\s?(\d[\d.,'\s]*)\s?{_CURRENCY}?")
_GROUPED = re.compile(r"\d{1,3}(?:[.,]\d{3})+")


def exact(value: Any) -> Fraction | None:
    """The number that a JSON value is or that a text writes; None where it is none, or cannot be told."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, Fraction):
        return value
    if isinstance(value, int | float):
        return Fraction(str(value)) if abs(value) < MOST else None  # also not for what is no number at all
    plain = decimal(value) if isinstance(value, str) else None
    return Fraction(plain) if plain is not None else None


def decimal(text: str) -> str | None:
    """A written number as digits with at most one point: `-1299.00`; None where it is none, or cannot be told.

    A single `,` or `.` before three digits may part thousands or decimals: `1,299` is no number, `1,299.00` is.
    """
    found = _WRITTEN.fullmatch(text.strip()) if len(text) <= LONGEST else None
    if found is None:
        return None
    sign = "-" if found[1] in ("-", "−") else ""
    body = re.sub(r"(?<=\d)['\s](?=\d{3}(?!\d))", "", found[2].rstrip())
    plain = _plain(body)
    return sign + plain if plain is not None else None


def _plain(body: str) -> str | None:
    marks = [c for c in body if c in ".,"]
    if not marks:
        return body if body.isascii() and body.isdigit() else None
    whole, _, part = body.rpartition(marks[-1])
    if len(set(marks)) == 1:
        if len(marks) > 1:
            return re.sub(r"[.,]", "", body) if _GROUPED.fullmatch(body) else None
        if len(part) == 3 and len(whole) <= 3 and not whole.startswith("0"):
            return None
    elif not _GROUPED.fullmatch(whole):
        return None
    whole = re.sub(r"[.,]", "", whole)
    return f"{whole}.{part}" if whole.isdigit() and part.isdigit() else None
