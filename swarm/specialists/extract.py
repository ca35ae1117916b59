"""*extract*: fields of a text as JSON by the pack's schema. The pack's patterns, or a small model under constraint."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from protocols.answers import Answer, Ask, Failed, Signals, Usage
from protocols.packs import Pack
from swarm.config.schemas import Validator, properties
from swarm.engine.base import Embedder, Generated, GenerateRequest, LanguageModel, Prompt, Turn
from swarm.specialists.base import (
    Rehearsed,
    agreement,
    cut,
    failed_checks,
    gist,
    mean_bytes,
    n_bytes,
    notes_of,
    origin,
    over_allowance,
    parse_output,
    text_allowance,
    text_of,
)
from swarm.specialists.examples import ExampleIndex
from swarm.specialists.samples import before, elected, written

SHOTS = 3
SHOT_TOKENS = 160  # of an example's text
TEXT_TOKENS = 600
REHEARSALS = 16
MARKUP = 8  # tokens that a chat format may add to a turn
_TELLING = re.compile(r"\d[\d.,:/-]*|[€$£¥]")  # what a field is likely to be made of


def allowance(pack: Pack, given: Mapping[str, Any]) -> int:
    """Language-model tokens that the small tier may use for this input: what its fullest prompt is likely to need."""
    shot = min(SHOT_TOKENS, mean_bytes(pack.examples, pack.input[0]) // 3) + pack.max_tokens // 2 + 24
    text = text_allowance(text_of(pack, given), TEXT_TOKENS) + n_bytes(notes_of(pack, given)) // 2
    return 64 + n_bytes(pack.instructions) // 3 + SHOTS * shot + text + pack.max_tokens


class Patterns:
    """Tier *code*: the first match of each field's patterns.

    Its signal `p` is the share of the message's numbers and currency signs that the matches account for: what no
    pattern explains may be a field that was missed.
    """

    def __init__(self, pack: Pack) -> None:
        self._pack = pack
        self._schema = Validator(pack.output_schema)
        self._patterns = {field: [re.compile(p) for p in patterns] for field, patterns in pack.patterns.items()}

    async def answer(self, ask: Ask) -> Answer | Failed:
        answer = self._extract(ask.id, text_of(self._pack, ask.input))
        if problem := self._schema.problem(answer.output):
            return Failed(id=ask.id, reason="invalid_output", detail=f"patterns of pack {self._pack.name!r}: {problem}")
        return answer

    async def rehearse(self) -> list[Rehearsed]:
        rehearsed = []
        for example in self._pack.examples:
            answer = self._extract("", text_of(self._pack, example.input))
            if self._schema.problem(answer.output) is None:
                rehearsed.append(Rehearsed(answer.signals, agreement(example.output, answer.output) == 1.0))
        return rehearsed

    def _extract(self, id: str, text: str) -> Answer:
        output: dict[str, Any] = dict.fromkeys(properties(self._pack.output_schema))
        covered = [False] * len(text)
        for field, patterns in self._patterns.items():
            match = next((m for p in patterns if (m := p.search(text))), None)
            if match is not None:
                output[field] = match["value"]
                covered[match.start() : match.end()] = [True] * (match.end() - match.start())
        telling = [m.start() for m in _TELLING.finditer(text)]
        explained = sum(covered[at] for at in telling) / len(telling) if telling else 1.0
        found = sum(value is not None for value in output.values()) / max(1, len(output))
        signals = Signals(p=explained, margin=found, checks_failed=failed_checks(self._pack, output, text))
        return Answer(id=id, output=output, signals=signals)


class Filler:
    """Tier *small*: JSON constrained by the schema, after the nearest examples.

    `adapter` is the path of a LoRA that `model` was opened with.
    """

    def __init__(
        self,
        pack: Pack,
        tier: str,
        model: LanguageModel,
        index: ExampleIndex,
        embedder: Embedder | None,
        adapter: str | None = None,
    ) -> None:
        self._pack = pack
        self._schema = Validator(pack.output_schema)
        self._tier = tier
        self._model = model
        self._adapter = adapter
        self._index = index
        self._embedder = embedder

    async def answer(self, ask: Ask) -> Answer | Failed:
        text = text_of(self._pack, ask.input)
        return await self._fill(ask, text, await self._nearest(text))

    async def rehearse(self) -> list[Rehearsed]:
        indices = range(0, len(self._pack.examples), max(1, len(self._pack.examples) // REHEARSALS))
        return list(await asyncio.gather(*(self._rehearse_one(i) for i in indices)))

    async def _rehearse_one(self, i: int) -> Rehearsed:
        example = self._pack.examples[i]
        ask = Ask(
            id=f"rehearsal-{i}", task="", step="", specialist=self._pack.name, tier=self._tier, input=example.input,
            max_tokens=100_000,
        )  # fmt: skip
        text = text_of(self._pack, example.input)
        answer = await self._fill(ask, text, await self._nearest(text, without=i))
        correct = isinstance(answer, Answer) and agreement(example.output, answer.output) == 1.0
        return Rehearsed(answer.signals, correct)

    async def _nearest(self, text: str, without: int | None = None) -> list[Turn]:
        """The nearest examples as turns; without an embedder, the first ones."""
        if self._embedder is None:
            chosen = [e for i, e in enumerate(self._pack.examples) if i != without][:SHOTS]
        else:
            (vector,) = await self._embedder.embed((gist(text),))
            chosen = self._index.nearest(self._index.cosines(vector, without), SHOTS)
        turns = []
        for example in chosen:
            turns.append(Turn("user", f"Message: {cut(text_of(self._pack, example.input), self._model, SHOT_TOKENS)}"))
            turns.append(Turn("assistant", json.dumps(example.output, ensure_ascii=False)))
        return turns

    async def _fill(self, ask: Ask, text: str, shots: list[Turn]) -> Answer | Failed:
        system = Turn("system", self._pack.instructions.strip())
        room = ask.max_tokens // ask.samples - self._pack.max_tokens - self._model.count(system.text) - 2 * MARKUP
        if room < 24:
            return over_allowance(ask)
        notes = notes_of(self._pack, ask.input)
        left = room - 8 - (self._model.count(notes) if notes else 0)
        question = Turn("user", f"{notes}Message: {cut(text, self._model, min(TEXT_TOKENS, left))}")
        while not self._fits(ask, (system, *shots, question)):
            if not shots:
                return over_allowance(ask)
            shots = shots[2:]
        request = GenerateRequest(
            Prompt((system, *shots, question), shared=1),
            self._pack.max_tokens,
            schema=self._pack.output_schema,
            adapter=self._adapter,
            origin=origin(ask),
        )
        replies = [self._judge(ask, text, each) for each in await written(self._model, request, ask.samples)]
        return replies[0] if ask.samples == 1 else elected(replies, agreement, _agree)

    def _fits(self, ask: Ask, turns: tuple[Turn, ...]) -> bool:
        needed = sum(self._model.count(t.text) + MARKUP for t in turns) + self._pack.max_tokens
        return needed * ask.samples <= ask.max_tokens

    def _judge(self, ask: Ask, text: str, generated: Generated) -> Answer | Failed:
        """The answer, or why there is none.

        A text that was cut is JSON of the schema, yet its last value stops where the room ended and what follows it
        was made up: that is no answer. Its signals are kept, as they tell how sure the model was before.
        """
        usage = Usage(tokens_in=generated.tokens_in, tokens_out=generated.tokens_out)
        output = parse_output(self._schema, generated.text)
        signals = Signals(mean_logprob=generated.mean_logprob, min_logprob=generated.min_logprob)
        if generated.finish == "length" or isinstance(output, str):
            detail = output if isinstance(output, str) else ""
            if generated.finish == "length":
                detail = f"no end within {self._pack.max_tokens} tokens; raise max_tokens of pack {self._pack.name!r}"
            return Failed(id=ask.id, reason="invalid_output", detail=detail, usage=usage, signals=signals)
        earlier = before(ask)
        agreed = agreement(output, earlier.output) if earlier is not None else None
        checked = msgspec.structs.replace(
            signals, agreement=agreed, checks_failed=failed_checks(self._pack, output, text)
        )
        return Answer(id=ask.id, output=output, usage=usage, signals=checked)


def _agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Whether two outputs say the same in every field."""
    return float(agreement(one, other) == 1.0)
