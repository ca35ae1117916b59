"""Recorded answers in place of models, so that policies are compared on what really happened.

A file of recorded rows is JSON Lines, one row for each query and tier:

    {"query": "q1", "tier": "small", "output": {"answer": "B"}, "correct": 1, "confidence": 0.8, "micro_usd": 12}

`output`, `confidence`, `micro_usd`, `ms`, `tokens_in` and `tokens_out` may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from swarm.backtest.curve import Curve, Floats


class NotRecorded(LookupError):
    """A policy asked for an answer that no row holds."""


class Unreadable(ValueError):
    """A file of recorded rows is not what it should be."""


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one tier said to one query. `correct` may be a share, 0..1. `step` and `signals` are for recorded tiers."""

    query: str
    tier: str
    correct: float
    output: dict[str, Any] = {}
    confidence: float | None = None
    micro_usd: int = 0
    ms: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    step: str | None = None
    signals: dict[str, Any] = {}


@dataclass(frozen=True)
class Outcome:
    """One query under a policy: the rows it paid for, in order; the last one's answer was kept."""

    asked: tuple[Row, ...]

    @property
    def correct(self) -> float:
        return self.asked[-1].correct

    @property
    def micro_usd(self) -> int:
        return sum(row.micro_usd for row in self.asked)

    @property
    def ms(self) -> float:
        return sum(row.ms for row in self.asked)


Policy = Callable[[tuple[Row, ...]], str | None]
"""Sees the rows asked so far, their `correct` as nan; names the next tier, or None to keep the last answer. It is
asked first with no rows."""


class Replay:
    """Recorded rows by query and tier. `queries` and `tiers` are in the order of their first row."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows: dict[tuple[str, str], Row] = {}
        for row in rows:
            if (row.query, row.tier) in self._rows:
                raise Unreadable(f"query {row.query!r} has two rows of tier {row.tier!r}; keep one")
            self._rows[row.query, row.tier] = row
        self.queries = tuple(dict.fromkeys(query for query, _ in self._rows))
        self.tiers = tuple(dict.fromkeys(tier for _, tier in self._rows))

    @classmethod
    def read(cls, path: Path) -> Replay:
        """Raises `Unreadable` with the line's number."""
        rows = []
        for i, line in enumerate(path.read_bytes().splitlines(), start=1):
            if not line.strip():
                continue
            try:
                rows.append(msgspec.json.decode(line, type=Row))
            except msgspec.DecodeError as error:
                raise Unreadable(f"{path.name}:{i}: {error}") from error
        return cls(rows)

    def answer(self, query: str, tier: str) -> Row:
        """Raises `NotRecorded`."""
        try:
            return self._rows[query, tier]
        except KeyError:
            known = ", ".join(t for t in self.tiers if (query, t) in self._rows) or "none"
            raise NotRecorded(f"query {query!r} has no row of tier {tier!r}; recorded are: {known}") from None

    def play(self, policy: Policy, queries: Sequence[str] | None = None) -> list[Outcome]:
        """One outcome a query. Raises `NotRecorded`; ValueError when the policy asks no tier or the same one twice."""
        return [self._one(policy, query) for query in (self.queries if queries is None else queries)]

    def curve(self, policies: Iterable[Policy], queries: Sequence[str] | None = None) -> Curve:
        """Mean dollars and mean quality of each policy: a family of them, say one a threshold, gives a curve."""
        played = [self.play(policy, queries) for policy in policies]
        return Curve.through([usd(p).mean() for p in played], [quality(p).mean() for p in played])

    def _one(self, policy: Policy, query: str) -> Outcome:
        asked: tuple[Row, ...] = ()
        while (tier := policy(tuple(msgspec.structs.replace(row, correct=float("nan")) for row in asked))) is not None:
            if any(row.tier == tier for row in asked):
                raise ValueError(f"the policy asks tier {tier!r} twice for query {query!r}; a recording answers once")
            asked += (self.answer(query, tier),)
        if not asked:
            raise ValueError(f"the policy asks no tier for query {query!r}; name one at first")
        return Outcome(asked)


def quality(outcomes: Sequence[Outcome]) -> Floats:
    return np.array([o.correct for o in outcomes], np.float64)


def usd(outcomes: Sequence[Outcome]) -> Floats:
    return np.array([o.micro_usd for o in outcomes], np.float64) / 1e6
