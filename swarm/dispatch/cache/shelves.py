"""What the caches of a store hold, step by step, and clearing them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from swarm.dispatch.cache import kept, said, similar
from swarm.dispatch.cache.audit import Audit, Evidence
from swarm.dispatch.cache.kept import Kept
from swarm.state.records import Record, Records

PAGE = 1_000  # records read at a time


@dataclass(slots=True)
class Shelf:
    """One step's. `tokens`, `micro_usd`: what its answers cost; each that is used again saves that much once more.

    `said`: replies of tiers, kept for inputs whose step was not accepted. Of a semantic cache: `looked` reuses were
    computed all the same, `wrong` of which would have been wrong; at most `bound` wrong ones have escaped in `requests`
    (at a level of 95%).
    """

    swarm: str
    step: str
    answers: int = 0
    said: int = 0
    similar: int = 0
    tokens: int = 0
    micro_usd: int = 0
    oldest: float | None = None
    looked: int = 0
    wrong: int = 0
    requests: int = 0
    bound: int = 0

    def facts(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        since = "" if self.oldest is None else f" since {datetime.fromtimestamp(self.oldest, UTC):%Y-%m-%d %H:%M} UTC"
        line = f"{self.swarm}  {self.step}  {self.answers:,} answers{since}, which took {self.tokens:,} tokens"
        if self.said:
            line += f"; {self.said:,} replies of tiers"
        if self.similar:
            line += (
                f"; {self.similar:,} to compare with, {self.wrong:,} of {self.looked:,} reuses looked at were wrong, "
                f"at most {self.bound:,} wrong reuses escaped in {self.requests:,} requests"
            )
        return line


async def shelves(records: Records, swarm: str, scope: str) -> list[Shelf]:
    """Of one swarm and tenant, by step. Raises `StoreError`."""
    found: dict[str, Shelf] = {}
    for kind in (kept.KIND, similar.KIND):
        after = ""
        while page := await records.scan(kind, scope, after=after, limit=PAGE):
            for record in page:
                step = record.key.split("/", 1)[0]
                _count(found.setdefault(step, Shelf(swarm, step)), record)
            after = page[-1].key
    return [found[step] for step in sorted(found)]


async def cleared(records: Records, scope: str, step: str | None = None) -> None:
    """Forget a step's answers, or all of a swarm. Raises `StoreError`."""
    for kind in (kept.KIND, similar.KIND):
        await records.forget(kind, scope, "" if step is None else f"{step}/")


def _count(shelf: Shelf, record: Record) -> None:
    try:
        if record.key.startswith(f"{shelf.step}/{said.MARK}"):
            shelf.said += 1
        elif record.kind == kept.KIND:
            answer = msgspec.msgpack.decode(record.body, type=Kept)
            shelf.answers += 1
            shelf.tokens += answer.cost.tokens
            shelf.micro_usd += answer.cost.micro_usd
            shelf.oldest = record.at if shelf.oldest is None else min(shelf.oldest, record.at)
        elif record.key.endswith("/standing"):
            requests, evidence = msgspec.msgpack.decode(record.body, type=tuple[int, Evidence])
            shelf.requests += requests
            shelf.bound += Audit(evidence=evidence).bound()
        elif not record.key.endswith("/claim"):
            entry = msgspec.msgpack.decode(record.body, type=similar.Entry)
            shelf.similar += 1
            shelf.looked += entry.chance < 1.0
            shelf.wrong += entry.wrong and entry.chance < 1.0
    except msgspec.DecodeError:
        pass  # of another program's making: it is not used either
