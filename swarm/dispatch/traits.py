"""What can be read off a question without understanding it: lengths, digits, options, words that make it hard."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

_ASKED = (
    "which",
    "what",
    "how",
    "why",
    "when",
    "who",
    "if",
    "best",
    "most",
    "following",
    "find",
    "calculate",
    "according",
)
_ACTED = ("she", "his", "would", "patient", "court", "passage", "scenario")  # a case is told, not a fact asked
_COUNTED = (
    "more",
    "less",
    "fewer",
    "than",
    "each",
    "every",
    "per",
    "total",
    "left",
    "average",
    "ratio",
    "rest",
    "same",
)
_NEGATED = re.compile(r"\b(not|except|least|false|incorrect|never)\b")
_NUMERIC = re.compile(r"[-\d.,\s%$/]+")
_LETTERED = re.compile(r"^[A-J]\. ", re.MULTILINE)


def question_traits(prompts: Sequence[str], options: Sequence[Sequence[str]] = ()) -> NDArray[np.float64]:
    """One row a prompt. `options`: the choices of each; without them, lines that begin with `A. `, `B. ` … count."""
    given = [tuple(o) for o in options] if options else [_options(p) for p in prompts]
    stems = prompts if options else [_LETTERED.split(p, maxsplit=1)[0] for p in prompts]
    rows = [_of_stem(s) + _of_options(s, o) for s, o in zip(stems, given, strict=True)]
    return np.array(rows, np.float64).reshape(len(prompts), -1 if prompts else 0)


def _options(prompt: str) -> tuple[str, ...]:
    parts = _LETTERED.split(prompt)[1:]
    return tuple(part.removesuffix("Answer:").strip() for part in parts)


def _of_stem(stem: str) -> list[float]:
    n, low = max(1, len(stem)), stem.lower()
    digits = sum(c.isdigit() for c in stem)
    counts = (
        len(stem),
        digits,
        len(re.findall(r"[.?!](?:\s|$)", stem)),
        stem.count("\n"),
        len(re.findall(r"\d+", stem)),
        len(re.findall(r"\d/\d|half|third|quarter|twice|times|fourth|percent|%", low)),
        sum(len(re.findall(rf"\b{w}\b", low)) for w in _COUNTED),
    )
    flags = (
        "?" in stem,
        "__" in stem,
        '"' in stem or "“" in stem,
        _NEGATED.search(low),
        any(w in stem for w in ("NOT", "EXCEPT", "LEAST")),
        "statement 1" in low,
        re.search(r"\bI{1,3}\b", stem),
        re.search(r"\b1[5-9]\d\d\b|\b20\d\d\b", stem),
        not stem.isascii(),
        *(re.search(rf"\b{w}\b", low) for w in (*_ASKED, *_ACTED)),
    )
    return [*map(float, np.log1p(counts)), *(float(bool(f)) for f in flags), digits / n, *_wording(stem)]


def _wording(text: str) -> list[float]:
    """Of the words: how many, how long, how many of them long or capitalised; of the signs: formulas, brackets."""
    words = re.findall(r"[A-Za-z]+", text)
    n = max(1, len(words))
    return [
        float(np.log1p(len(words))),
        sum(map(len, words)) / n,
        sum(len(w) > 9 for w in words) / n,
        sum(w[0].isupper() for w in words) / n,
        float(np.log1p(len(re.findall(r"[=^\\+<>|]", text)))),
        float(np.log1p(text.count("("))),
    ]


def _of_options(stem: str, options: tuple[str, ...]) -> list[float]:
    lengths = np.array([len(o) for o in options] or [0], np.float64)
    bags = [set(re.findall(r"\w+", o.lower())) for o in options]
    asked = set(re.findall(r"\w+", stem.lower()))
    alike = [len(a & b) / max(1, len(a | b)) for a, b in combinations(bags, 2)]
    n_chars = max(1.0, float(lengths.sum()))
    low = " ".join(options).lower()
    return [
        float(len(options)),
        *map(float, np.log1p((lengths.max(), lengths.min(), lengths.mean(), lengths.sum()))),
        float(np.log1p(lengths.max()) - np.log1p(lengths.min())),
        sum(c.isdigit() for o in options for c in o) / n_chars,
        float(np.mean([bool(_NUMERIC.fullmatch(o)) for o in options])) if options else 0.0,
        float(bool(re.search(r"\b(all|none|both|neither) of", low))),
        float("true, false" in low),
        float(np.mean(alike)) if alike else 0.0,
        float(np.mean([len(b & asked) / max(1, len(b)) for b in bags])) if bags else 0.0,
        float(np.log1p(len(stem) + n_chars)),
        *(_wording("\n".join((stem, *options))) if options else [0.0] * 6),
    ]
