"""Any kind of specialist, answered from what its tier once said: policies compared on what really happened."""

from __future__ import annotations

import asyncio

import msgspec

from protocols.answers import Answer, Ask, Failed, Signals, Usage
from protocols.packs import Pack
from swarm.config.schemas import Validator
from swarm.engine.replay import Replay
from swarm.plan.recordings import Row
from swarm.specialists.base import Rehearsed, failed_checks, text_of

ID = "id"  # the input that names an item, where a specialist has one
_SHOWN = 80  # characters of a query in an error


class Recorded:
    """Looks up the input's `id`, else the text that is read. An answer counts as it was: tokens, money, certainty.

    What the pack checks is checked anew; agreement is with the tier that spoke before it here.
    """

    def __init__(self, pack: Pack, replay: Replay) -> None:
        self._pack = pack
        self._replay = replay
        self._schema = Validator(pack.output_schema)

    async def answer(self, ask: Ask) -> Answer | Failed:
        queries = self._queries(ask)
        row = self._replay.find(ask.step, queries)
        if row is None or row.output is None:
            missing = "no row" if row is None else "no output"
            detail = f"{self._replay.name}: {missing} of tier {ask.tier!r} for query {queries[0][:_SHOWN]!r}; record it"
            return Failed(id=ask.id, reason="unavailable", detail=detail)
        if self._replay.timed:
            await asyncio.sleep(row.ms / 1000)
        usage = Usage(tokens_in=row.tokens_in, tokens_out=row.tokens_out, micro_usd=row.micro_usd)
        if problem := self._problem(row.output):
            return Failed(id=ask.id, reason="invalid_output", detail=f"{self._replay.name}: {problem}", usage=usage)
        return Answer(id=ask.id, output=row.output, usage=usage, signals=self._signals(ask, row))

    async def rehearse(self) -> list[Rehearsed]:
        return []

    def _queries(self, ask: Ask) -> list[str]:
        named = ask.input.get(ID)
        text = text_of(self._pack, ask.input)
        return [str(named), text] if isinstance(named, str | int) else [text]

    def _problem(self, output: dict[str, object]) -> str | None:
        if problem := self._schema.problem(output):
            return problem
        label = output.get("label")
        if self._pack.labels and not (isinstance(label, str) and label in self._pack.labels):
            return f"{label!r} is none of the labels of pack {self._pack.name!r}"
        return None

    def _signals(self, ask: Ask, row: Row) -> Signals:
        signals = row.signals or Signals(p=row.confidence)
        output = row.output or {}
        checks = failed_checks(self._pack, output, text_of(self._pack, ask.input))
        agreed = float(ask.earlier[-1].output == output) if ask.earlier else None
        return msgspec.structs.replace(
            signals,
            agreement=agreed if signals.agreement is None else signals.agreement,
            checks_failed=tuple(dict.fromkeys((*signals.checks_failed, *checks))),
        )
