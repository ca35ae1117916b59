"""Recorded answers: a file of what tiers once said, read in place of asking them.

JSON Lines, one row for each query and tier, as `swarm backtest` reads them:

    {"query": "q1", "tier": "small", "output": {"label": "fees"}, "confidence": 0.8, "micro_usd": 12, "correct": 1}

Only `query` must be there. Rows without a `tier` are everybody's, rows without a `step` every step's.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import msgspec

from protocols.answers import Signals
from protocols.control import ModelSpec, Recording
from swarm.config import SwarmFile, paths
from swarm.config.problems import Problem
from swarm.config.schema import RecordedModel
from swarm.errors import quote

MOST_BYTES = 256 * 1024 * 1024
_Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
_Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
_Ms = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]


class BadRow(ValueError):
    """A line that is no recorded answer; the message names it."""


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one tier said to one query, which is the `id` or the text of a step's input.

    `signals` is all that was known of its certainty, `confidence` short for a stated probability. `correct` is for
    those who count afterwards: whoever decides does not see it. `ms`: milliseconds that it took.
    """

    query: str
    tier: str | None = None
    step: str | None = None
    output: dict[str, Any] | None = None
    correct: _Share | None = None
    confidence: _Share | None = None
    signals: Signals | None = None
    micro_usd: _Count = 0
    ms: _Ms = 0.0
    tokens_in: _Count = 0
    tokens_out: _Count = 0


Key = tuple[str | None, str]  # step, if the row is of one alone; query


def rows_of(data: bytes, tier: str) -> dict[Key, Row]:
    """The rows of a tier. Raises `BadRow` for the first line that is none, or says again what another has said."""
    found: dict[Key, Row] = {}
    decode = msgspec.json.Decoder(Row).decode
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise BadRow(f"line {number}: {e}") from None
        if row.tier not in (None, tier):
            continue
        if (row.step, row.query) in found:
            raise BadRow(f"line {number}: query {quote(row.query)} has two rows of tier {quote(tier)}; keep one")
        found[row.step, row.query] = row
    return found


def recorded(file: SwarmFile, name: str, model: RecordedModel) -> ModelSpec | Problem:
    """The model that a tier's recording stands for, or what is wrong with its file."""
    place = ("models", name, "replay")
    try:
        path = paths.inside(file.folder, model.replay)
        if path.stat().st_size > MOST_BYTES:
            return file.at(place, f"{quote(model.replay)} has more than {MOST_BYTES:,} bytes; record fewer items")
        data = path.read_bytes()
        rows = rows_of(data, name).values()
    except paths.Outside as e:
        return file.at(place, str(e))
    except OSError as e:
        return file.at(place, f"{quote(model.replay)} cannot be read ({e.strerror})")
    except BadRow as e:
        return file.at(place, " ".join(f"{quote(model.replay)}: {e}".split()))
    if not rows:
        return file.at(place, f"{quote(model.replay)} has no row of tier {quote(name)}; name the tier as its rows do")
    recording = Recording(
        path=str(path),
        sha256=hashlib.sha256(data).hexdigest(),
        most_micro_usd=max(row.micro_usd for row in rows),
        most_tokens=max(row.tokens_in + row.tokens_out for row in rows),
        timed=model.timed,
    )
    return ModelSpec(
        tier=name, kind=model.stands_for, name=model.replay, input_micro_usd_per_mtok=0, output_micro_usd_per_mtok=0,
        recording=recording,
    )  # fmt: skip
