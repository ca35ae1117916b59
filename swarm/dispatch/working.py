"""What can be checked in the working of a sum: its arithmetic re-computed, its numbers traced to their sources."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUMBER = r"\d[\d,]*+(?:\.\d*+)?"  # possessive: a long row of digits must not be tried in every split
ROUNDING = 0.006  # relative; a text may round as it writes
LONGEST = 80  # characters of an expression that is still computed
FREE = {0.5, 1, 2, 3, 4, 5, 7, 10, 12, 24, 30, 52, 60, 100}  # numbers that need no source: days, months, per cent, …

_TERM = rf"[($]{{0,4}}{NUMBER}%?\){{0,4}}"  # bounded, as the number of terms is: the text may be hostile
_EQUATION = re.compile(rf"((?:{_TERM}\s{{0,3}}[-+*/x×]\s{{0,3}}){{1,20}}{_TERM})\s*=\s*\$?\s*({NUMBER})")
_CALCULATOR = re.compile(r"<<([^=>]{0,80})=([^>]{0,80})>>")  # as the GSM8K examples annotate their sums
_MARKED = re.compile(rf"####\s*\$?-?({NUMBER})")
_DOUBT = re.compile(
    r"\b(however|wait|mistake|cannot|can't|impossible|not enough|unclear|approximately|about|assum\w*)\b"
)
_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True)
class Sums:
    """The equations of a text whose left side could be computed: what stood there, and whether it is right."""

    lefts: tuple[str, ...]
    results: tuple[float, ...]
    right: tuple[bool, ...]


def number(text: str) -> float | None:
    """The number that the text is, commas allowed; None when it is none."""
    try:
        return float(text.replace(",", "").rstrip("."))
    except ValueError:
        return None


def numbers(text: str) -> list[float]:
    return [v for v in map(number, re.findall(NUMBER, text)) if v is not None]


def last_number(text: str) -> float | None:
    """What graders of sums take for the answer; the sign is left out."""
    found = numbers(text)
    return found[-1] if found else None


def compute(expression: str) -> float | None:
    """The value of sums, products, differences and quotients of numbers; None for anything else."""
    plain = re.sub(r"[$,\s]", "", expression).replace("x", "*").replace("×", "*").replace("%", "/100")
    if len(plain) > LONGEST or not re.fullmatch(r"[\d.+\-*/()]+", plain) or "**" in plain or "//" in plain:
        return None
    try:
        return _value(ast.parse(plain, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError):
        return None


def sums(text: str) -> Sums:
    """Every equation in the text that can be re-computed, the calculator's annotations included."""
    written = _EQUATION.findall(_CALCULATOR.sub("", text)) + _CALCULATOR.findall(text)
    checked = [(left, compute(left), number(result)) for left, result in written]
    whole = [(left, v, r) for left, v, r in checked if v is not None and r is not None]
    right = tuple(abs(v - r) <= max(0.011, ROUNDING * abs(v)) for _, v, r in whole)
    return Sums(tuple(left for left, _, _ in whole), tuple(r for _, _, r in whole), right)


def working_traits(prompts: Sequence[str], texts: Sequence[str]) -> NDArray[np.float64]:
    """One row an answer: checks of its arithmetic, of where its numbers come from, of how it ends."""
    rows = [_traits(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    return np.array(rows, np.float64).reshape(len(texts), -1 if texts else 0)


def _traits(prompt: str, text: str) -> list[float]:
    asked, said, found = numbers(prompt), numbers(text), sums(text)
    marked = _MARKED.search(text)
    answer = number(marked[1]) if marked else None
    answer = answer if answer is not None or "####" in text else last_number(text)
    known = set(asked)
    return [
        *_of_answer(answer, asked, said, found),
        *_of_sums(found, known),
        *_of_text(prompt, text),
        len(known) - len(known & set(said)),  # given, and not used
        len(known & set(said)) / max(1, len(known)),
        sum(v != int(v) for v in said) / max(1, len(said)),
        float(np.log1p(len(said))),
    ]


def _of_answer(answer: float | None, asked: list[float], said: list[float], found: Sums) -> list[float]:
    if answer is None:
        return [0.0] * 9
    return [
        1.0,
        float(answer == int(answer)),
        float(answer % 10 == 0),
        float(bool(said) and said[-1] != answer),  # something was said after it
        float(answer in found.results),
        float(bool(found.results) and found.results[-1] == answer),
        float(answer in asked),
        float(np.log1p(answer)),
        float(answer > 5 * max([*asked, 1.0])),
    ]


def _of_sums(found: Sums, known: set[float]) -> list[float]:
    wrong = len(found.right) - sum(found.right)
    signs = "".join(re.findall(r"[-+*/x×]", " ".join(found.lefts)))
    last = found.lefts[-1] if found.lefts else ""
    sources, odd = known | FREE, 0
    for left, result in zip(found.lefts, found.results, strict=True):
        odd += sum(not {v, v / 100, v * 100} & sources for v in numbers(left))
        sources = sources | {result}
    return [
        float(min(wrong, 3)),
        float(wrong > 0),
        *map(float, np.log1p((sum(found.right), len(found.right)))),
        *(float(signs.count(s)) for s in "/*-+"),
        *(float(s in last) for s in "/-+"),
        float(sum(v != int(v) for v in found.results)),
        float(min(odd, 3)),  # numbers that come from nowhere
    ]


def _of_text(prompt: str, text: str) -> list[float]:
    low, words = text.lower(), text.split()
    counts = (len(text), text.count("\n"), text.count(". "), text.count("<<"))
    return [
        *map(float, np.log1p(counts)),
        float(np.log1p(len(text)) - np.log1p(len(prompt))),
        float("####" in text),
        float(text.count("<<") != text.count(">>")),
        float(not re.search(r"[.\d\n)!>]\s*$", text)),  # cut off
        float(len(_DOUBT.findall(low))),
        1 - len(set(words)) / max(1, len(words)),
        float("answer" in low),
        float("therefore" in low),
        float(bool(re.search(r"\b[xyn]\b\s*[=+*-]", low))),  # algebra
    ]


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left), _value(right))
        case _:
            raise ValueError("not a sum of numbers")
