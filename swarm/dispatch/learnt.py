"""What labelled answers have taught about a swarm: one file beside the swarm file, with the answers themselves.

It keeps what each tier said of each labelled item, not only what was made of it, so that another target or a later
program can be served from the same file. A step whose pack, ladder or models have changed since is no longer described.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from protocols.answers import Signals
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


class Labels(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step's labelled items, each with what its tiers said, cheapest first. `skipped`: items that do not label it."""

    answers_hash: str  # `PlannedStep.answers_hash` when they were answered
    rows: tuple[dict[str, Seen], ...]
    skipped: int = 0


class Source(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The labelled file that was read."""

    name: str
    sha256: str
    items: int


class Learnt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole file. `made`: ISO 8601, UTC. `models`: tier -> sha256 of the weights that answered."""

    version: str = msgspec.field(name="schema")
    swarm: str
    plan_hash: str
    program: str
    made: str
    data: Source
    models: dict[str, str]
    steps: dict[str, Labels]


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
