"""What labelled answers have taught about a swarm: one file beside the swarm file, with the answers themselves.

It keeps what each tier said of each labelled item, not only what was made of it, so that another target or a later
program can be served from the same file. A step whose pack, ladder or models have changed since is no longer described.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from protocols.answers import Signals
from swarm.dispatch.explore import effective, weights
from swarm.errors import CalibrationError

VERSION = "calibration/v1"
SUFFIX = ".calibration.json"
MOST_BYTES = 256 * 1024 * 1024


class Seen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One tier's answer to a labelled item. `answer` is its output as text that can be compared with another's."""

    signals: Signals
    correct: bool
    answer: str = ""
    micro_usd: int = 0
    ms: int = 0


class Taught(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An item of an earlier run, judged by a dearer tier: `correct` says that a tier gave the same answer as that one.

    `propensity`: the chance that it was seen, in (0, 1]. `plain`: it belongs to a plain sample of all that was asked.
    """

    seen: dict[str, Seen]
    propensity: float
    plain: bool = False


class Labels(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step's labelled items, each with what its tiers said, cheapest first. `skipped`: items that do not label it.

    `taught`: items that a dearer tier, `teacher`, has labelled in earlier runs. It may err; `rows` are the truth.
    """

    answers_hash: str  # `PlannedStep.answers_hash` when they were answered
    rows: tuple[dict[str, Seen], ...] = ()
    skipped: int = 0
    taught: tuple[Taught, ...] = ()
    teacher: str = ""


class Source(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The labelled file that was read; or "runs", and the digest of what was read of them."""

    name: str
    sha256: str
    items: int


class Learnt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole file. `made`: ISO 8601, UTC. `models`: tier -> sha256 of the weights that answered.

    `data`: the labelled items that were answered, `runs`: what was taken from earlier runs; one of the two at least.
    """

    version: str = msgspec.field(name="schema")
    swarm: str
    plan_hash: str
    program: str
    made: str
    data: Source | None = None
    models: dict[str, str]
    steps: dict[str, Labels]
    runs: Source | None = None


def beside(swarm_file: Path) -> Path:
    """Where the calibration of this swarm file lies: `triage.yaml` has `triage.calibration.json`."""
    return swarm_file.with_suffix(SUFFIX)


def save(learnt: Learnt, path: Path) -> None:
    """Write it whole or not at all. Raises `CalibrationError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(learnt, order="deterministic"), indent=1))
        os.replace(temporary, path)
    except OSError as e:
        temporary.unlink(missing_ok=True)
        raise CalibrationError(f"{path}: cannot be written ({e.strerror}); name another place with --output") from e


def load(path: Path) -> Learnt:
    """Raises `CalibrationError` for a file that is damaged, too large, or of another program's version."""
    remedy = "make it again with `swarm calibrate`"
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CalibrationError(f"{path}: has more than {MOST_BYTES:,} bytes; {remedy} from fewer items")
        data = path.read_bytes()
        version = msgspec.json.decode(data, type=dict[str, Any]).get("schema")
        if version != VERSION:
            raise CalibrationError(f"{path}: its schema is {version!r}, this program reads {VERSION!r}; {remedy}")
        return msgspec.json.decode(data, type=Learnt)
    except OSError as e:
        raise CalibrationError(f"{path}: cannot be read ({e.strerror})") from e
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise CalibrationError(f"{path}: is damaged ({e}); {remedy}") from e


@dataclass(frozen=True, slots=True)
class Halves:
    """A step's labels, cut in two: what confidences are learnt from, and what shows that they hold.

    `rows`, `taught`: see `Labels`. `shown`: a plain sample that shares no item with them. `teacher`: by whose word it
    is judged; "" where that is the truth.
    """

    rows: Sequence[dict[str, Seen]]
    taught: Sequence[Taught]
    shown: Sequence[dict[str, Seen]]
    teacher: str


def halves(labels: Labels) -> Halves:
    """Every second item shows. Where there are true labels only those do: a promise goes by the truth if it can."""
    if labels.rows:
        return Halves(labels.rows[::2], labels.taught, labels.rows[1::2], "")
    shown = [item.seen for item in labels.taught[1::2] if item.plain]
    return Halves((), labels.taught[::2], shown, labels.teacher)


def pooled(rows: Sequence[dict[str, Seen]], taught: Sequence[Taught]) -> tuple[list[dict[str, Seen]], list[float]]:
    """All items, and how often each counts: a row once, what runs have taught by one over its propensity.

    The latter are scaled so that together they count as often as they are worth plain labels (`explore.effective`): so
    neither kind drowns the other.
    """
    found = weights([item.propensity for item in taught])
    scale = effective(found) / sum(found) if found else 0.0
    return [*rows, *(item.seen for item in taught)], [1.0] * len(rows) + [scale * w for w in found]


def is_right(output: Mapping[str, Any], label: Mapping[str, Any]) -> bool:
    """Whether an output has every value that its label names; text is compared without case and outer spaces."""
    return comparable({name: output[name] for name in label if name in output}) == comparable(label)


def comparable(output: Mapping[str, Any]) -> str:
    """An output as text: equal for two that say the same."""
    return msgspec.json.encode({k: _plain(v) for k, v in output.items()}, order="deterministic").decode()


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return " ".join(value.split()).casefold()
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
