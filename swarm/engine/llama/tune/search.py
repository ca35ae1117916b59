"""Finding how a model runs best on this machine: formats first, then threads, batch, and attention with its memory.

Coordinate descent: each stage starts from the best of the one before. Every stage has its share of the time budget,
and answers are compared with those of the published file before a format or a KV format may be chosen.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from msgspec.structs import replace

from protocols.work import EngineSpec
from swarm.catalogue import Catalogue
from swarm.engine.llama.quantize import requantize
from swarm.engine.llama.tune.bench import Bench
from swarm.engine.llama.tune.measure import NO_TIME
from swarm.engine.llama.tune.work import TuneWork
from swarm.errors import EngineError, ModelError
from swarm.models.cpu import this_cpu
from swarm.models.files import disk_faults_named
from swarm.models.lock import exclusive
from swarm.models.spec import Format
from swarm.models.store import PUBLISHED, ModelFiles, ModelStore
from swarm.models.tuned import LEAST_GAIN, Heard, Row, Setting, Stage, Tuned, TuneWishes, fastest, folder, foregone

LIKELY: tuple[Format, ...] = ("Q8_0", "Q4_0", "BF16", "F16", "IQ4_NL")  # the slowest to make comes last
_UNQUANTIZED = ("F16", "BF16")
_MOST_UNQUANTIZED = 1_500_000_000  # bytes of the published file: a larger one is too slow to make and to read
_BATCHES = (128, 256, 512)
_ALL_LAYERS = 999
_CONTEXT = 4096
_SEQUENCES = 32
_FIRST_LOOK = 64  # answers compared of a format that will not be chosen anyway
_MAKING_ONE = 0.15  # of the budget
# Until when a stage may last, as a share of the budget.
_MADE, _FORMATS, _COMPARED, _THREADS, _BATCH, _ATTENTION = 0.20, 0.42, 0.74, 0.80, 0.87, 0.97


def tune(store: ModelStore, name: str, wishes: TuneWishes, heard: Heard) -> Tuned:
    """Measure `name`, which is here, within `wishes.budget_s` seconds; implements `swarm.models.tuned.Tune`.

    Formats are made in a folder of their own, which is gone afterwards; the chosen one is taken into the store.
    Whatever ends this early leaves nothing behind. Raises `ModelNotFound`, `ModelDamaged`, `ModelError` for a model
    that cannot be tuned or a full disk, `EngineError` when not even the published file can be measured in time.
    """
    if store.registry.get(name).entry.kind != "gguf":
        raise ModelError(f"model {name!r} is no language model: there is nothing to tune")
    published = store.path(name, PUBLISHED)
    with _alone(store, heard), _workplace(store.folder(name) / ".tuning") as workplace:
        run = _Run(store, name, published, wishes, heard, workplace)
        return run.tuned()


@dataclass
class _Run:
    store: ModelStore
    name: str
    published: ModelFiles
    wishes: TuneWishes
    heard: Heard
    workplace: Path
    started: float = field(default_factory=time.monotonic)
    made: dict[str, Path] = field(default_factory=dict)  # format -> file
    rows: list[Row] = field(default_factory=list)

    def tuned(self) -> Tuned:
        cpu = this_cpu()
        threads = max(1, min(self.wishes.threads or cpu.cores, cpu.cores))
        base = Setting(threads=threads)
        catalogue = Catalogue()
        work = TuneWork([catalogue.open(pack) for pack in catalogue.names()])
        with ExitStack() as owned:
            bench = owned.enter_context(closing(Bench(self._spec, base, work, self._at(1.0), self.heard)))
            if bench.has_gpu():
                on_cpu = Row(stage="device", setting=base)
                base = self._stage(bench, "device", on_cpu, _on_devices(base), _MADE).setting
            best = self._format(bench, base)
            note = foregone(self.rows, best)
            best = self._stage(bench, "threads", best, _with_threads(best.setting), _THREADS)
            best = self._stage(bench, "batch", best, _with_batches(best.setting), _BATCH)
            best = self._attention(bench, best)
        self._take_in(best.setting.format)
        return Tuned(
            model=self.name,
            model_hash=self.published.sha256,
            cpu=cpu,
            chosen=best.setting,
            rows=tuple(self.rows),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            took_s=round(time.monotonic() - self.started, 1),
            library=_library(),
            note=note or foregone(self.rows, best),
        )

    # --- stages

    def _stage(self, bench: Bench, stage: Stage, like: Row, settings: Sequence[Setting], share: float) -> Row:
        """Compare settings, the present one first, that all answer as in the row `like`."""
        if len(settings) < 2:
            return like
        rows = [_alike(row, like) for row in bench.compare(stage, settings, self._at(share))]
        self.rows += rows
        best = fastest(rows, rows[0], allow_changed_answers=True)
        bench.close(but=best.setting)
        return best

    def _format(self, bench: Bench, base: Setting) -> Row:
        """The fastest format that keeps the answers. Compared are the fastest first, until one of them does."""
        settings = [base, *(replace(base, format=format) for format in self._make())]
        published, *others = bench.compare("format", settings, self._at(_FORMATS))
        if published.problem is not None:
            raise EngineError(f"model {self.name!r} as it is published cannot be measured: {published.problem}")
        found = self.wishes.allow_changed_answers  # nobody needs to know exactly then
        looked: list[Row] = []
        for row in sorted(others, key=lambda row: -row.speed):
            worth_it = not found and row.speed >= published.speed * LEAST_GAIN
            most = None if worth_it else _FIRST_LOOK
            looked.append(bench.check(row, self._at(_COMPARED), most) if row.problem is None else row)
            found = found or (worth_it and looked[-1].keeps_answers)
        published = replace(published, changed=0, checked=bench.n_answers, nll=self._nll(bench, base))
        self.rows[:0] = [published, *looked]  # before those that could not be made
        trusted = self.store.registry.get(self.name).entry.requantize
        best = fastest(looked, published, self.wishes.allow_changed_answers, trusted)
        bench.close(but=best.setting)
        return best

    def _attention(self, bench: Bench, best: Row) -> Row:
        """Flash attention and the format of the KV memory. Answers are compared where something would be gained."""
        base = best.setting
        rows = bench.compare("attention", _with_attention(base), self._at(_ATTENTION))
        looked = [_alike(rows[0], best)]
        for row in rows[1:]:
            if row.setting.kv_format == base.kv_format:
                looked.append(_alike(row, best))
            elif row.problem is None and row.speed >= rows[0].speed * LEAST_GAIN and bench.n_answers:
                looked.append(bench.check(row, self._at(1.0), bench.n_answers))
            else:
                looked.append(row)
        self.rows += looked
        allow = self.wishes.allow_changed_answers
        usable = [row for row in looked if row.setting.kv_format == base.kv_format or row.keeps_answers or allow]
        return fastest(usable, looked[0], allow_changed_answers=True)

    def _nll(self, bench: Bench, published: Setting) -> float | None:
        try:
            return bench.nll(published)
        except EngineError:
            return None

    # --- files

    def _make(self) -> Iterator[str]:
        """The formats to compare with the published one; those that are not here are made, as time allows."""
        here = self.store.formats(self.name)
        for format in self.wishes.formats or _likely(self.published.weights):
            if format in here:
                self.made[format] = self.store.path(self.name, format).weights
            else:
                self.heard(f"making {format}")
                target = self.workplace / f"{format}.gguf"
                within_s = min(_MAKING_ONE * self.wishes.budget_s, self._at(_MADE) - time.monotonic())
                try:
                    if within_s < 0:
                        raise ModelError(NO_TIME)
                    requantize(self.published.weights, target, format, within_s)
                except ModelError as e:
                    self.rows.append(Row(stage="format", setting=Setting(format=format), problem=str(e)))
                    continue
                self.made[format] = target
            yield format

    def _take_in(self, format: str) -> None:
        made = self.made.get(format)
        if made is not None and made.parent == self.workplace:
            self.store.take_in(self.name, made, format)

    def _spec(self, setting: Setting) -> EngineSpec:
        return EngineSpec(
            path=str(self.made.get(setting.format, self.published.weights)),
            chat_format=self.published.chat_format or "plain",
            threads=setting.threads,
            context=_CONTEXT,
            sequences=_SEQUENCES,
            batch=setting.batch,
            gpu_layers=setting.gpu_layers,
            flash_attention=setting.flash_attention,
            kv_format=setting.kv_format,
        )

    def _at(self, share: float) -> float:
        """The monotonic time at which this share of the budget is used up."""
        return self.started + share * self.wishes.budget_s


def _likely(weights: Path) -> Iterator[Format]:
    """Formats worth a try: not the one it has (as its name says), and of a large model none that is larger."""
    large = weights.stat().st_size > _MOST_UNQUANTIZED
    for format in LIKELY:
        is_published = re.search(rf"(?<![a-z0-9]){format}(?![a-z0-9_])", weights.name, re.IGNORECASE)
        if not is_published and not (large and format in _UNQUANTIZED):
            yield format


def _on_devices(base: Setting) -> list[Setting]:
    return [base, replace(base, gpu_layers=_ALL_LAYERS)]


def _with_threads(base: Setting) -> list[Setting]:
    """Powers of two and half of the cores; the base has all of them."""
    most = base.threads
    counts = {1 << n for n in range(most.bit_length()) if 1 << n >= most // 8} | {most // 2}
    return [base, *(replace(base, threads=n) for n in sorted(counts - {most, 0}, reverse=True))]


def _with_batches(base: Setting) -> list[Setting]:
    return [base, *(replace(base, batch=batch) for batch in _BATCHES if batch != base.batch)]


def _with_attention(base: Setting) -> list[Setting]:
    others = (replace(base, kv_format=kv) for kv in ("bf16", "f32", "q8_0"))  # q8_0 needs flash attention
    return [base, replace(base, flash_attention=False), *others]


def _alike(row: Row, answers: Row) -> Row:
    """The row with what is known of the answers of another that has the same format and KV format."""
    return replace(row, changed=answers.changed, near_ties=answers.near_ties, checked=answers.checked, nll=answers.nll)


@contextmanager
def _alone(store: ModelStore, heard: Heard) -> Iterator[None]:
    """Two runs at once would measure each other."""
    with disk_faults_named(folder(store)):
        folder(store).mkdir(parents=True, exist_ok=True)
        with exclusive(folder(store) / ".lock", lambda pid: heard(f"waiting for process {pid}, which is tuning")):
            yield


@contextmanager
def _workplace(path: Path) -> Iterator[Path]:
    """An empty folder beside the model's files, gone afterwards; one that a killed run left is emptied."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _library() -> str:
    try:
        return version("llama-cpp-python")
    except PackageNotFoundError:
        return ""
