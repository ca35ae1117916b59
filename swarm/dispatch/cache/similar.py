"""The semantic cache of one step: answers to inputs that say nearly the same, within a stated error."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from protocols.ids import new_id
from swarm.dispatch.cache.audit import Evidence
from swarm.dispatch.cache.gate import Gate, Standing
from swarm.dispatch.cache.kept import Kept
from swarm.dispatch.cache.key import normal
from swarm.dispatch.cache.neighbours import Candidate, Neighbours
from swarm.dispatch.cache.risk import Risk
from swarm.dispatch.learnt import comparable
from swarm.engine.base import Embedder
from swarm.plan.plan import PlannedStep
from swarm.state.records import Record, RecordExists, Records

log = structlog.get_logger(__name__)

KIND = "near"
MOST_CHARS = 1_000  # of a text; an embedder does not read a longer one whole, and cannot tell it from others
LEASE_S = 600.0  # after which another program may take over the standing of one that is silent
PAGE = 1_000  # records read at a time


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An input that was computed. `features`, `wrong`: of what would have been reused for it; `chance`: of the look."""

    vector: bytes  # float32
    group: str
    answer: Kept
    features: tuple[float, ...] = ()
    wrong: bool = False
    chance: float = 1.0


@dataclass(frozen=True, slots=True)
class Near:
    """An earlier answer that is reused. `risk`: how likely it is wrong, as far as can be told."""

    answer: Kept
    similarity: float
    risk: float


@dataclass(frozen=True, slots=True)
class Look:
    """The answer is to be computed; `candidate` is what would have been reused, `chance` that of looking at it."""

    vector: NDArray[np.float32]
    group: str
    candidate: Candidate | None
    said: str = ""
    chance: float = 1.0


@dataclass(frozen=True, slots=True)
class _Held:
    """A row's answer, also as text that can be compared, and its record."""

    answer: Kept
    said: str
    key: str
    expires: float | None


class Similar:
    """Opened with `open`. For one event loop; `now`: the time of day in seconds."""

    def __init__(
        self, step: PlannedStep, identity: str, records: Records, scope: str, embedder: Embedder,
        now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._step = step
        self._records = records
        self._scope = scope
        self._embedder = embedder
        self._now = now
        self._prefix = f"{step.name}/{identity}/"
        self._me = new_id("o")
        self._renewed = 0.0
        self._owns = False  # the standing that is kept is this one's
        self._near: Neighbours | None = None
        self._held: dict[int, _Held] = {}  # by row
        self._groups: dict[str, int] = {}
        self._answers: dict[str, int] = {}
        self._risk = Risk()
        self.gate = Gate(step.cache.error, step.cache.level)

    # --- asking

    async def ask(self, given: Mapping[str, Any], coin: float) -> Near | Look | None:
        """What is to be reused, or what to compare the computed answer with; None for an input it cannot judge.

        coin: even in [0, 1), and nothing that anybody could know before. Raises `StoreError`, `EngineClosed`.
        """
        text = self._text(given)
        if text is None:
            return None
        vector = (await self._embedder.embed((text,)))[0]
        group = self._group(given)
        live, found = self.gate.audit.evidence.live, self._candidate(vector, group)
        if found is None:
            self.gate.chance(1.0)
            return Look(vector, group, None)
        held, risk = self._held[found.row], self._risk.of(found.features)
        chance = self.gate.chance(risk)
        looks = coin < chance
        if looks:
            self.gate.audit.looked(chance)
        if chance < 1.0 and (looks or self.gate.audit.evidence.live != live):
            await self._save([])  # what is at stake is known before anything comes of it
        if looks:
            return Look(vector, group, found, held.said, chance)
        return Near(held.answer, found.similarity, risk)

    async def keep(self, look: Look, answer: Kept) -> bool | None:
        """Keep what was computed. Returns whether the reuse would have been wrong; None where there was none.

        Raises `StoreError`.
        """
        said = comparable(answer.output)
        wrong: bool | None = None
        features: tuple[float, ...] = ()
        if look.candidate is not None:
            wrong, features = said != look.said, look.candidate.features
            self._risk.learn(features, wrong)
            if not wrong:
                self.gate.audit.right(look.chance)
        expires = None if self._step.cache.ttl_s is None else self._now() + self._step.cache.ttl_s
        key = new_id("n")  # in order of time
        old = self._add(look.vector, look.group, _Held(answer, said, key, expires))
        entry = Entry(
            vector=look.vector.tobytes(), group=look.group, answer=answer, features=features, wrong=bool(wrong),
            chance=look.chance,
        )  # fmt: skip
        await self._save([self._record(key, msgspec.msgpack.encode(entry), expires)])
        if old is not None:
            await self._records.forget(KIND, self._scope, f"{self._prefix}{old.key}")
        return wrong

    def _text(self, given: Mapping[str, Any]) -> str | None:
        text = given.get(self._step.pack.input[0])
        return normal(text) if isinstance(text, str) and 0 < len(text) <= MOST_CHARS else None

    def _group(self, given: Mapping[str, Any]) -> str:
        """All that is not the text must be equal: a number says more than its embedding."""
        rest = {name: value for name, value in given.items() if name != self._step.pack.input[0]}
        content = msgspec.msgpack.encode(normal(rest), order="deterministic")
        return hashlib.blake2b(content, digest_size=12).hexdigest()

    def _candidate(self, vector: NDArray[np.float32], group: str) -> Candidate | None:
        if self._near is None or group not in self._groups:
            return None
        while (found := self._near.nearest(vector, self._groups[group])) is not None:
            expires = self._held[found.row].expires
            if expires is None or expires > self._now():
                return found
            self._near.drop(found.row)
        return None

    def _add(self, vector: NDArray[np.float32], group: str, held: _Held) -> _Held | None:
        """Returns what had its place before."""
        if self._near is None:
            self._near = Neighbours(len(vector))
        number = self._answers.setdefault(held.said, len(self._answers))
        row = self._near.add(vector, number, self._groups.setdefault(group, len(self._groups)))
        old, self._held[row] = self._held.get(row), held
        return old

    # --- what lasts

    async def open(self) -> None:
        """Take up what earlier runs have kept. Raises `StoreError`."""
        after = self._prefix
        while page := await self._records.scan(KIND, self._scope, after=after, limit=PAGE):
            for record in page:
                if not record.key.startswith(self._prefix):
                    return await self._claim()
                self._take(record)
            after = page[-1].key
        await self._claim()

    async def close(self) -> None:
        """Leave the standing to whoever comes next. Raises `StoreError`."""
        if self._owns:
            await self._save([])
            await self._records.forget(KIND, self._scope, f"{self._prefix}claim")
            self._owns = False

    def _take(self, record: Record) -> None:
        key = record.key.removeprefix(self._prefix)
        if not key.startswith("n-"):
            return
        try:
            entry = msgspec.msgpack.decode(record.body, type=Entry)
        except msgspec.DecodeError:
            return  # of another program's making
        vector = np.frombuffer(entry.vector, np.float32)
        held = _Held(entry.answer, comparable(entry.answer.output), key, record.expires)
        self._add(vector, entry.group, held)
        if entry.features:
            self._risk.learn(entry.features, entry.wrong)

    async def _claim(self) -> None:
        """Go on from the standing that is kept, unless a program that runs has it: then this one begins its own."""
        try:
            await self._records.put([self._lease()], new=True)
        except RecordExists:
            log.info("cache.begins_anew", step=self._step.name, cause="another program holds its standing")
            return
        self._owns, self._renewed = True, self._now()
        kept = await self._records.get(KIND, self._scope, f"{self._prefix}standing")
        if kept is not None:
            requests, evidence = msgspec.msgpack.decode(kept.body, type=tuple[int, Evidence])
            self.gate = Gate(self._step.cache.error, self._step.cache.level, Standing(requests, evidence))

    async def _save(self, entries: list[Record]) -> None:
        if self._owns and self._now() > self._renewed + LEASE_S / 3:
            holder = await self._records.get(KIND, self._scope, f"{self._prefix}claim")
            self._owns = holder is not None and holder.body == self._me.encode()
            self._renewed = self._now()
            entries = [*entries, self._lease()] if self._owns else entries
        if self._owns:
            standing = self.gate.standing
            body = msgspec.msgpack.encode((standing.requests, standing.evidence))
            entries = [*entries, self._record("standing", body)]
        if entries:
            await self._records.put(entries)

    def _lease(self) -> Record:
        return self._record("claim", self._me.encode(), self._now() + LEASE_S)

    def _record(self, key: str, body: bytes, expires: float | None = None) -> Record:
        return Record(
            kind=KIND, scope=self._scope, key=f"{self._prefix}{key}", body=body, at=self._now(), expires=expires
        )
