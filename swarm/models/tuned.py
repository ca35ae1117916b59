"""What runs a model best on this machine: the choice, the table it was made from, and the file that keeps both.

One file for each processor and published file: `HOME/tuned/MODEL-HASH.CPU-KEY.json`. A lost one costs a tuning run.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

import msgspec
import structlog

from protocols.work import KvFormat
from swarm.models.cpu import Cpu, this_cpu
from swarm.models.files import disk_faults_named, write_atomic
from swarm.models.spec import Format
from swarm.models.store import PUBLISHED, ModelFiles, ModelStore

log = structlog.get_logger(__name__)

BUDGET_S = 110.0
MOST_CHANGED = 0.01  # share of answers that may differ from those of the file as it is published
LEAST_CHECKED = 100  # answers compared before that share means anything
LEAST_GAIN = 1.03  # a smaller lead may be noise
_LEAST_GAIN_ONCE = 1.3  # the same of what was measured in one round only
_MOST_BYTES = 1024 * 1024

Stage = Literal["device", "format", "threads", "batch", "attention"]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is opened. `format` is `published` or one that the published file is re-quantized to."""

    format: str = PUBLISHED
    threads: int = 1
    batch: Annotated[int, msgspec.Meta(ge=32, le=65536)] = 256
    flash_attention: bool = True
    kv_format: KvFormat = "f16"
    gpu_layers: int = 0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table: a setting, and what was seen of it in this stage.

    Rates are medians per second over `rounds`: `prompt` tokens of one long prompt, `generated` tokens of several
    constrained answers at once, `messages` classified. They are None where `problem` says why nothing was measured.
    `changed` of `checked` answers differ from clear ones of the published file (None when nobody looked), `near_ties`
    more from answers that it hardly preferred itself. `nll`: mean negative log-probability (nats a token) of the packs'
    texts. `n_bytes`: size of the weights.
    """

    stage: Stage
    setting: Setting
    prompt: float | None = None
    generated: float | None = None
    messages: float | None = None
    rounds: int = 0
    changed: int | None = None
    near_ties: int = 0
    checked: int = 0
    nll: float | None = None
    n_bytes: int | None = None
    problem: str | None = None

    @property
    def speed(self) -> float:
        """One number to choose by: the geometric mean of messages and generated tokens a second. 0 when unmeasured."""
        return math.sqrt((self.messages or 0.0) * (self.generated or 0.0))

    @property
    def keeps_answers(self) -> bool:
        """Whether so few answers change, among enough of them, that nobody has to be asked."""
        if self.changed is None:
            return False
        is_reference = self.setting.format == PUBLISHED and self.setting.kv_format == "f16"
        return is_reference or (self.checked >= LEAST_CHECKED and self.changed <= MOST_CHANGED * self.checked)


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """A finished tuning run. `model_hash`: SHA-256 of the published file; `at`: UTC, ISO 8601."""

    model: str
    model_hash: str
    cpu: Cpu
    chosen: Setting
    rows: tuple[Row, ...]
    at: str
    took_s: float
    library: str = ""  # the version of llama-cpp-python: another build may have other kernels
    note: str = ""  # what could be had otherwise
    schema: Literal["tuned/v1"] = "tuned/v1"


@dataclass(frozen=True, slots=True)
class TuneWishes:
    """What a caller may ask of a tuning run. `threads`: at most so many (default: every core granted); `formats`:
    only these beside the published file (default: those that are likely to be fast)."""

    threads: int | None = None
    budget_s: float = BUDGET_S
    allow_changed_answers: bool = False
    formats: tuple[Format, ...] | None = None


class Heard(Protocol):
    """Is told what a tuning run does now."""

    def __call__(self, text: str) -> None: ...


class Tune(Protocol):
    """Measures a model that is here and returns the table and the choice; nothing is kept yet but the chosen format."""

    def __call__(self, store: ModelStore, name: str, wishes: TuneWishes, heard: Heard) -> Tuned: ...


def fastest(rows: Iterable[Row], base: Row, allow_changed_answers: bool = False, trusted: str | None = None) -> Row:
    """The row to go on with: `base`, unless another is clearly faster and keeps the answers (or need not).

    `trusted`: the format that is used untuned; that its answers could not be compared does not speak against it.
    """

    def keeps(row: Row) -> bool:
        few = (row.changed or 0) <= MOST_CHANGED * max(row.checked, LEAST_CHECKED)
        return row.keeps_answers or (row.setting.format == trusted and few)

    usable = [row for row in rows if row.problem is None and (allow_changed_answers or keeps(row))]
    best = max(usable, key=lambda row: row.speed, default=base)
    gain = LEAST_GAIN if best.rounds > 1 else _LEAST_GAIN_ONCE
    return best if best.speed >= base.speed * gain else base


def foregone(rows: Iterable[Row], chosen: Row) -> str:
    """A sentence on the fastest row that was not taken for its answers; empty when there is none."""
    faster = [row for row in rows if row.stage == chosen.stage and not row.keeps_answers and row.problem is None]
    best = max(faster, key=lambda row: row.speed, default=chosen)
    if chosen.problem is not None or best.speed < chosen.speed * LEAST_GAIN:
        return ""
    gain = f"{described(best)} would be {best.speed / chosen.speed:.1f} times as fast"
    if best.changed is None or (best.checked < LEAST_CHECKED and best.changed <= MOST_CHANGED * best.checked):
        return f"{gain}, but there was no time to compare its answers; give a larger --budget"
    share = best.changed / best.checked
    return f"{gain}, but changes {share:.1%} of {best.checked} answers; --allow-changed-answers takes it"


def described(row: Row) -> str:
    """What the row tries, in its stage's own words."""
    setting = row.setting
    match row.stage:
        case "device":
            return "the GPU" if setting.gpu_layers else "the CPU"
        case "format":
            return setting.format
        case "threads":
            return f"{setting.threads} thread{'s' if setting.threads > 1 else ''}"
        case "batch":
            return f"batch {setting.batch}"
        case "attention":
            return f"{'flash' if setting.flash_attention else 'no flash'}, {setting.kv_format} KV"


def setting_for(tuned: Tuned | None, here: Collection[str], preferred: str | None, cores: int) -> Setting:
    """How to open a model on `cores` granted cores.

    The tuned setting when there is one and its format is among those `here`; else a guess: the registry's preferred
    format if it is here, flash attention, f16 KV, all cores.
    """
    if tuned is not None and tuned.chosen.format in here:
        return msgspec.structs.replace(tuned.chosen, threads=max(1, min(tuned.chosen.threads, cores)))
    format = preferred if preferred is not None and preferred in here else PUBLISHED
    return Setting(format=format, threads=max(1, cores))


def opening(store: ModelStore, name: str, cores: int) -> tuple[ModelFiles, Setting]:
    """The file that runs best here and how to open it. Raises what `ModelStore.path` raises."""
    published = store.path(name, PUBLISHED)
    preferred = store.registry.get(name).entry.requantize
    setting = setting_for(kept(store, published.sha256), store.formats(name), preferred, cores)
    return store.path(name, setting.format), setting


def kept(store: ModelStore, model_hash: str, cpu: Cpu | None = None) -> Tuned | None:
    """What was tuned for this published file on this processor; a file that cannot be used is passed over and said."""
    cpu = cpu or this_cpu()
    path = _path(store, model_hash, cpu)
    try:
        with path.open("rb") as file:
            tuned = msgspec.json.decode(file.read(_MOST_BYTES), type=Tuned)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as e:
        log.warning("tuned.ignored", path=str(path), cause=str(e))
        return None
    if (tuned.model_hash, tuned.cpu) != (model_hash, cpu):
        log.warning("tuned.ignored", path=str(path), cause="it was made for another model or processor")
        return None
    return tuned


def keep(store: ModelStore, tuned: Tuned) -> Path:
    """Write the run's result, in place of an older one, and return where. Raises `ModelError` for a full disk."""
    path = _path(store, tuned.model_hash, tuned.cpu)
    with disk_faults_named(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, msgspec.json.format(msgspec.json.encode(tuned), indent=2) + b"\n")
    return path


def folder(store: ModelStore) -> Path:
    """Where the results of tuning runs are kept."""
    return store.root.parent / "tuned"


def _path(store: ModelStore, model_hash: str, cpu: Cpu) -> Path:
    return folder(store) / f"{model_hash[:16]}.{cpu.key}.json"
