"""*generate*: a text. The pack's template with its places filled, or a small model where the pack asks for one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from protocols.answers import Answer, Ask, Failed, Signals, Usage
from protocols.packs import Pack
from swarm.config.schemas import Validator
from swarm.engine.base import Generated, GenerateRequest, LanguageModel, Prompt, Turn
from swarm.specialists.base import (
    Rehearsed,
    cut,
    failed_checks,
    n_bytes,
    origin,
    over_allowance,
    text_allowance,
    text_of,
)
from swarm.specialists.samples import elected, shared_words, written

TEXT_TOKENS = 400
_PLACE = re.compile(r"\{\{|\}\}|\{(?P<name>[a-z_][a-z0-9_.]*)(?:\|(?P<fallback>[^{}]*))?\}", re.IGNORECASE)


def allowance(pack: Pack, given: Mapping[str, Any]) -> int:
    """Language-model tokens that the small tier may use for this input."""
    known = n_bytes(_known(pack, given))
    text = text_allowance(text_of(pack, given), TEXT_TOKENS)
    return 64 + n_bytes(pack.instructions) // 3 + known + text + pack.max_tokens


def fill(template: str, given: Mapping[str, Any]) -> str:
    """`template` with each `{name|fallback}` replaced by that input, or that field of an input that is an object."""

    def place(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return match[0][0]
        value = _lookup(name, given)
        return str(value) if value is not None else (match["fallback"] or "")

    return _PLACE.sub(place, template)


class Templates:
    """Tier *code*: the template that the value of one input chooses."""

    def __init__(self, pack: Pack) -> None:
        assert pack.templates is not None
        self._pack = pack
        self._schema = Validator(pack.output_schema)
        self._templates = pack.templates

    async def answer(self, ask: Ask) -> Answer | Failed:
        chosen = str(ask.input.get(self._templates.by))
        if chosen in self._templates.generate_for:
            return Failed(id=ask.id, reason="declined", detail=f"the pack asks for a written text for {chosen!r}")
        output = {"text": fill(self._templates.choose.get(chosen, self._templates.default), ask.input)}
        if problem := self._schema.problem(output):
            return Failed(id=ask.id, reason="invalid_output", detail=f"the template of {chosen!r}: {problem}")
        failed = failed_checks(self._pack, output, text_of(self._pack, ask.input))
        return Answer(id=ask.id, output=output, signals=Signals(p=1.0, checks_failed=failed))

    async def rehearse(self) -> list[Rehearsed]:
        return []


class Writer:
    """Tier *small*: free text by the pack's instructions. `adapter`: path of a LoRA that `model` was opened with."""

    def __init__(self, pack: Pack, model: LanguageModel, adapter: str | None = None) -> None:
        self._pack = pack
        self._schema = Validator(pack.output_schema)
        self._model = model
        self._adapter = adapter

    async def answer(self, ask: Ask) -> Answer | Failed:
        known = _known(self._pack, ask.input)
        most = ask.max_tokens // ask.samples
        room = most - self._pack.max_tokens - self._model.count(self._pack.instructions + known) - 32
        if room < 16:
            return over_allowance(ask)
        message = cut(text_of(self._pack, ask.input), self._model, min(room, TEXT_TOKENS))
        turns = (Turn("system", self._pack.instructions.strip()), Turn("user", f"{known}\nMessage: {message}"))
        prompt = Prompt(turns, shared=1)
        request = GenerateRequest(
            prompt, self._pack.max_tokens, stop=("\n\n",), adapter=self._adapter, origin=origin(ask)
        )
        replies = [self._judge(ask, each) for each in await written(self._model, request, ask.samples)]
        return replies[0] if ask.samples == 1 else elected(replies, shared_words, shared_words)

    def _judge(self, ask: Ask, generated: Generated) -> Answer | Failed:
        logprobs = generated.logprobs or (0.0,)
        usage = Usage(tokens_in=generated.tokens_in, tokens_out=generated.tokens_out)
        if generated.finish == "length" or not generated.text.strip():
            detail = f"no end within {self._pack.max_tokens} tokens; raise max_tokens of pack {self._pack.name!r}"
            return Failed(id=ask.id, reason="invalid_output", detail=detail, usage=usage)
        output = {"text": generated.text.strip()}
        if problem := self._schema.problem(output):
            return Failed(id=ask.id, reason="invalid_output", detail=problem, usage=usage)
        checks = failed_checks(self._pack, output, text_of(self._pack, ask.input))
        mean = sum(logprobs) / len(logprobs)
        signals = Signals(mean_logprob=mean, min_logprob=min(logprobs), checks_failed=checks)
        return Answer(id=ask.id, output=output, usage=usage, signals=signals)

    async def rehearse(self) -> list[Rehearsed]:
        return []


def _known(pack: Pack, given: Mapping[str, Any]) -> str:
    """The inputs besides the text, as lines."""
    return "\n".join(f"{k}: {v}" for k, v in given.items() if k != pack.input[0] and v)


def _lookup(name: str, given: Mapping[str, Any]) -> Any:
    value: Any = given
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is not None:
        return value
    nested = (v.get(name) for v in given.values() if isinstance(v, Mapping))
    return next((v for v in nested if v is not None), None)
