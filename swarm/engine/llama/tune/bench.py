"""Settings side by side: their rates, in alternating rounds, and how many answers they change."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import msgspec

from protocols.work import EngineSpec, Scored
from swarm.engine.llama.tune.measure import NO_TIME, Job, Measured
from swarm.engine.llama.tune.work import TuneWork
from swarm.errors import EngineError, OutOfTime
from swarm.models.tuned import LEAST_CHECKED, MOST_CHANGED, Heard, Row, Setting, Stage, described

CLEAR_NATS = math.log(2)  # a smaller preference turns with the arithmetic alone (seen: flash attention on and off)
_ROUNDS = 5
_TOO_SLOW = 0.6  # of the fastest: not measured again
_CHUNK = 16  # questions asked at once
_MESSAGES = range(4, 13)  # classified in a round: so many that the published file needs about `_CLASSIFY_S`
_CLASSIFY_S = 2.5
_MESSAGE_TOKENS = 40
_CLEARLY_WORSE = 3 * MOST_CHANGED  # among the first answers compared: the others need not be
_MEMORY_SHARE = 0.25  # of this machine's memory for all engines that are open

SpecOf = Callable[[Setting], EngineSpec]


@dataclass(slots=True)
class Entrant:
    """A setting in a stage: generated tokens and messages a second in each round, or why there are none."""

    setting: Setting
    rates: list[tuple[float, float]] = field(default_factory=list)
    prompt: float = 0.0
    problem: str | None = None

    @property
    def speed(self) -> float:
        """Median over the rounds of √(generated tokens a second × messages a second); 0 before the first."""
        return median(math.sqrt(generated * messages) for generated, messages in self.rates) if self.rates else 0.0


@dataclass(frozen=True, slots=True)
class Warm:
    """An open engine that has read what its messages share, and its `prompt` tokens a second while it did."""

    measured: Measured
    prompt: float
    n_bytes: int


class Bench:
    """Opens settings and puts them to work until `deadline` (monotonic time), never longer. Close it."""

    def __init__(self, spec_of: SpecOf, reference: Setting, work: TuneWork, deadline: float, heard: Heard) -> None:
        self._spec_of = spec_of
        self._reference = reference
        self._work = work
        self._deadline = deadline
        self._heard = heard
        self._warm: dict[Setting, Warm] = {}
        self._answers: list[Scored] = []  # of the published file, to the first questions
        self._messages = 0  # in a round, the same for all; known when the first engine is open

    @property
    def n_answers(self) -> int:
        """How many questions the published file has answered."""
        return len(self._answers)

    def has_gpu(self) -> bool:
        """Whether llama.cpp can use a GPU here. Raises `EngineError` when the published file cannot be opened."""
        return self._opened(self._reference).has_gpu

    def close(self, but: Setting | None = None) -> None:
        """End all engines; the one of `but` stays."""
        for setting in [setting for setting in self._warm if setting != but]:
            self._warm.pop(setting).measured.close()

    def compare(self, stage: Stage, settings: Sequence[Setting], until: float) -> list[Row]:
        """Measure the settings in turn, the first in any case, round after round until `until` (monotonic time, s)."""
        entrants = [Entrant(setting) for setting in settings]
        for number in range(1, _ROUNDS + 1):
            started = time.monotonic()
            for entrant in _going_on(entrants):
                if entrant is not entrants[0] and time.monotonic() > until:
                    entrant.problem = None if entrant.rates else NO_TIME
                    continue
                self._heard(f"{described(Row(stage=stage, setting=entrant.setting))}, round {number}")
                self._measure(entrant, stage, number)
            now = time.monotonic()
            if now + (now - started) > until or len(_going_on(entrants)) < 2:
                break
        return [self._row(stage, entrant) for entrant in entrants]

    def check(self, row: Row, until: float, most: int | None = None) -> Row:
        """The row with its answers compared to those of the published file: at most `most`, all by default.

        Ends early at `until`, or once it is clear that too many change.
        """
        kinds: list[str] = []
        nll = row.nll
        try:
            nll = self.nll(row.setting)
            for start in range(0, len(self._work.questions[:most]), _CHUNK):
                if time.monotonic() > until or _hopeless(kinds):
                    break
                self._heard(f"{described(row)}: comparing answers, {start} so far")
                published = self._published_answers(start)
                said = self._answered(row.setting, start)
                kinds += map(changes, published, said)
        except OutOfTime:
            pass  # what was compared so far counts
        except EngineError as e:
            self._drop(row.setting)
            return msgspec.structs.replace(row, problem=str(e))
        changed, near_ties = kinds.count("clear"), kinds.count("near tie")
        looked = msgspec.structs.replace(row, changed=changed, near_ties=near_ties, checked=len(kinds), nll=nll)
        return looked if kinds else row

    def nll(self, setting: Setting) -> float:
        """Mean negative log-probability of the packs' texts, nats a token. Raises as `Measured.run`."""
        scored = self._opened(setting).run(self._work.texts, self._deadline).scored
        return -sum(sum(one.logprobs) for one in scored) / sum(sum(one.lengths) for one in scored)

    def _measure(self, entrant: Entrant, stage: Stage, number: int) -> None:
        try:
            measured = self._opened(entrant.setting)
            entrant.prompt = self._warm[entrant.setting].prompt
            messages = self._messages
            classified = measured.run(self._work.classify(f"{stage} {number}", messages), self._deadline)
            written = measured.run(self._work.generate(f"{stage} {number}", messages // 2), self._deadline)
        except OutOfTime as e:
            entrant.problem = None if entrant.rates else str(e)
        except EngineError as e:
            entrant.problem = str(e)
            self._drop(entrant.setting)
        else:
            entrant.rates.append((written.written / written.seconds, len(classified.scored) / classified.seconds))

    def _opened(self, setting: Setting) -> Measured:
        """The engine of this setting, opened and warmed up if it is not open. Raises as `Measured`."""
        if setting not in self._warm:
            spec = self._spec_of(setting)
            size = Path(spec.path).stat().st_size
            self._make_room(size)
            measured = Measured(spec, self._deadline)
            try:
                measured.run(self._work.generate("", answers=1), self._deadline)  # touches all weights
                read = measured.run(self._work.classify("", messages=1), self._deadline)
            except BaseException:
                measured.close()
                raise
            prompt = read.scored[0].tokens_in / read.seconds
            if not self._messages:
                fitting = int(prompt * _CLASSIFY_S / _MESSAGE_TOKENS)
                self._messages = min(max(fitting, _MESSAGES[0]), _MESSAGES[-1])
            self._warm[setting] = Warm(measured, prompt, size)
        return self._warm[setting].measured

    def _make_room(self, n_bytes: int) -> None:
        """Engines stay open between rounds as far as memory allows; the oldest is closed first."""
        while self._warm and sum(warm.n_bytes for warm in self._warm.values()) + n_bytes > _MEMORY_SHARE * _memory():
            self._drop(next(iter(self._warm)))

    def _drop(self, setting: Setting) -> None:
        if (warm := self._warm.pop(setting, None)) is not None:
            warm.measured.close()

    def _row(self, stage: Stage, entrant: Entrant) -> Row:
        row = Row(stage=stage, setting=entrant.setting, problem=entrant.problem)
        row = msgspec.structs.replace(row, n_bytes=Path(self._spec_of(entrant.setting).path).stat().st_size)
        if entrant.problem is not None:
            return row
        generated, messages = (median(rates) for rates in zip(*entrant.rates, strict=True))
        rounds = len(entrant.rates)
        return msgspec.structs.replace(
            row, prompt=entrant.prompt, generated=generated, messages=messages, rounds=rounds
        )

    def _published_answers(self, start: int) -> list[Scored]:
        """To a chunk of questions. They are asked in order, so only the chunk after the last one may be missing."""
        if start == len(self._answers):
            self._answers += self._answered(self._reference, start)
        return self._answers[start : start + _CHUNK]

    def _answered(self, setting: Setting, start: int) -> tuple[Scored, ...]:
        job = Job(score=self._work.questions[start : start + _CHUNK])
        return self._opened(setting).run(job, self._deadline).scored


def changes(published: Scored, other: Scored) -> str:
    """`same` answer; `clear`: another than the one that the published file preferred clearly; else a `near tie`."""
    if published.best == other.best:
        return "same"
    preference = published.ranked[published.best] - published.ranked[other.best]
    return "clear" if preference >= CLEAR_NATS else "near tie"


def _going_on(entrants: Sequence[Entrant]) -> list[Entrant]:
    """Those that are worth another round."""
    best = max(entrant.speed for entrant in entrants)
    return [e for e in entrants if e.problem is None and (not e.rates or e.speed >= _TOO_SLOW * best)]


def _hopeless(kinds: Sequence[str]) -> bool:
    """Whether so many answers changed among the first ones that the rest need not be compared."""
    changed = kinds.count("clear")
    return changed >= LEAST_CHECKED * _CLEARLY_WORSE and changed > _CLEARLY_WORSE * len(kinds)


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
