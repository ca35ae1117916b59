"""What a dearer tier said about answers that local tiers had given: lessons, kept run by run, to calibrate with later.

Two kinds, with the chance that each had to be seen, its propensity: an answer that escalated to the dearest paid tier
was sure to be (1), one that was kept was looked behind for a share of them alone (`escalation.explore`). Which it was
followed from the answer's own confidence, and whether it was looked behind from a coin; so one over the propensity is
what each lesson stands for (`explore.weights`).

Where the propensity is 0 nothing is seen and nothing can be said. That is all that is kept where nothing is explored;
answers kept below their threshold for want of money; and what a paid tier below the dearest has settled. Such regions
are not guessed at: a run that had one teaches the map from signals to confidence, where it was seen, and is no part of
the `plain` sample with which something is shown.

The teacher is a tier, not the truth: where it errs, a local answer that is right counts as wrong, and one that errs the
same way as right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from protocols.answers import Earlier
from protocols.ids import TaskId
from swarm.dispatch.explore import in_plain_sample
from swarm.dispatch.lasting import LABEL, Lasting
from swarm.dispatch.learnt import Seen, Taught, comparable
from swarm.dispatch.rules import LOCAL
from swarm.dispatch.ways import ways
from swarm.errors import StoreError
from swarm.plan.plan import Plan, PlannedStep
from swarm.state.records import Record, Records

log = structlog.get_logger(__name__)

KEPT_S = 180 * 86_400.0  # seconds after which a lesson is of other times
LARGEST = 64 * 1024  # bytes of a lesson that keeps its input
PAGE = 1000

_encode = msgspec.msgpack.Encoder().encode


class Lesson(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item of a step. `said`: by the local tiers, cheapest first; `output`: by the teacher, the dearest paid tier.

    `propensity`: the chance that this was seen, in (0, 1]. `floor`: the least that any answer to the step had then; 0
    where some could not be seen at all. `answers_hash`: the step's, `models`: tier -> sha256, when this was said.
    """

    step: str
    answers_hash: str
    task: TaskId
    input: dict[str, Any]
    said: tuple[Earlier, ...]
    teacher: str
    output: dict[str, Any]
    propensity: float
    floor: float
    models: dict[str, str] = {}


_decode = msgspec.msgpack.Decoder(Lesson).decode


class Lessons:
    """Writes one run's, beside its tasks: whatever has gathered during one writing is the next."""

    def __init__(self, lasting: Lasting) -> None:
        self._lasting = lasting
        self._gathered: list[Record] = []
        self._writer: asyncio.Task[None] | None = None

    def add(self, lesson: Lesson) -> None:
        """To be written soon. One that is no data is left out: nobody's task depends on it."""
        try:
            body = _encode(lesson)
        except (TypeError, ValueError, OverflowError) as e:
            log.warning("lesson.not_kept", step=lesson.step, cause=str(e))
            return
        if len(body) > LARGEST:  # what it teaches is in the signals
            body = _encode(msgspec.structs.replace(lesson, input={}))
        now = self._lasting.now()
        key = f"{_prefix(lesson.step, lesson.answers_hash)}{lesson.task}"
        self._gathered.append(
            Record(kind=LABEL, scope=self._lasting.scope, key=key, body=body, at=now, expires=now + KEPT_S)
        )
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Wait for what is being written."""
        if self._writer is not None:
            await self._writer

    async def _write(self) -> None:
        while self._gathered:
            records, self._gathered = self._gathered, []
            try:
                await self._lasting.records.put(records)
            except StoreError as e:
                log.warning("lesson.not_kept", lessons=len(records), cause=str(e))


# --- taken up again ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gathered:
    """All that runs have taught about a step as it is now. `teacher`: whose word it is, "" where there is nothing.

    `others`: lessons left out, as other models gave those answers, or another tier was the teacher.
    """

    taught: tuple[Taught, ...] = ()
    teacher: str = ""
    others: int = 0


async def gathered(
    records: Records, scope: str, plan: Plan, models: Mapping[str, str] | None = None
) -> tuple[dict[str, Gathered], dict[str, str]]:
    """By step, what was kept about it with the pack, ladder and inputs that it has now; and the models that answered.

    `models`: tier -> sha256 of those that count; where they are not known, those of the latest lesson. Raises
    `StoreError`.
    """
    lessons = {step.name: await _all(records, scope, step) for step in plan.steps}
    latest = max((found[-1] for found in lessons.values() if found), key=lambda lesson: lesson.task, default=None)
    known = dict(models or (latest.models if latest is not None else {}))
    return {step.name: _of(step, lessons[step.name], known) for step in plan.steps}, known


def _of(step: PlannedStep, lessons: Sequence[Lesson], models: Mapping[str, str]) -> Gathered:
    ladder = [tier.name for tier in step.ladder]
    teacher = max((lesson.teacher for lesson in lessons), key=ladder.index, default="")
    fit = [lesson for lesson in lessons if lesson.teacher == teacher and _same(lesson.models, models)]
    local = [way.name for way in ways(step) if way.tier.kind in LOCAL]
    taught = tuple(_taught(lesson, local) for lesson in fit)
    return Gathered(taught, teacher if taught else "", len(lessons) - len(fit))


def _taught(lesson: Lesson, local: Sequence[str]) -> Taught:
    right = comparable(lesson.output)
    seen = {
        e.tier: Seen(
            signals=e.signals,
            answer=comparable(e.output),
            correct=comparable(e.output) == right and not e.signals.checks_failed,
        )
        for e in lesson.said
    }
    whole = all(name in seen for name in local)
    plain = whole and in_plain_sample(lesson.task, lesson.step, lesson.propensity, lesson.floor)
    return Taught(seen=seen, propensity=lesson.propensity, plain=plain)


async def _all(records: Records, scope: str, step: PlannedStep) -> list[Lesson]:
    """In the order of their tasks' names, which is that of their beginning."""
    prefix = _prefix(step.name, step.answers_hash)
    lessons: list[Lesson] = []
    after = prefix
    while page := await records.scan(LABEL, scope, after=after, limit=PAGE):
        for record in page:
            if not record.key.startswith(prefix):
                return lessons
            lessons.append(_decode(record.body))
        after = page[-1].key
    return lessons


def _prefix(step: str, answers_hash: str) -> str:
    return f"{step}/{answers_hash}/"


def _same(then: Mapping[str, str], now: Mapping[str, str]) -> bool:
    return all(now[tier] == sha256 for tier, sha256 in then.items() if tier in now)
