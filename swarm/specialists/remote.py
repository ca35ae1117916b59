"""Tier *remote*: any kind of specialist, asked of a paid model behind an OpenAI-compatible address."""

from __future__ import annotations

import json
from collections.abc import Mapping

from protocols.answers import Answer, Ask, Failed, Signals, Usage
from protocols.packs import Pack
from swarm.config.schemas import Validator
from swarm.engine.remote import RemoteModel
from swarm.observe import secrets
from swarm.specialists.base import Rehearsed, failed_checks, parse_output, text_of

SHOTS = 4
_MOST_TEXT = 20_000  # characters of a message that are sent


def messages(pack: Pack, given: Mapping[str, object]) -> list[dict[str, str]]:
    """The chat that is sent: instructions with labels and schema, a few examples, the input as data."""
    rules = [pack.instructions.strip()]
    if pack.labels:
        rules.append("Labels:\n" + "\n".join(f"- {label}: {meaning}" for label, meaning in pack.labels.items()))
    rules.append("Answer with one JSON object that satisfies this JSON Schema, and nothing else:")
    rules.append(_json(pack.output_schema))
    chat = [{"role": "system", "content": "\n\n".join(rules)}]
    step = max(1, len(pack.examples) // SHOTS)
    for example in pack.examples[::step][:SHOTS]:
        chat.append({"role": "user", "content": _json(example.input)})
        chat.append({"role": "assistant", "content": _json(example.output)})
    shown = {k: v[:_MOST_TEXT] if isinstance(v, str) else v for k, v in given.items()}
    return [*chat, {"role": "user", "content": _json(shown)}]


class Remote:
    """Asks once; trying again is the dispatcher's business."""

    def __init__(self, pack: Pack, model: RemoteModel) -> None:
        self._pack = pack
        self._schema = Validator(pack.output_schema)
        self._model = model

    async def answer(self, ask: Ask) -> Answer | Failed:
        timeout_s = None if ask.left_ms is None else ask.left_ms / 1000
        reply = await self._model.complete(
            messages(self._pack, ask.input), self._pack.output_schema, self._pack.max_tokens, timeout_s
        )
        usage = Usage(tokens_in=reply.tokens_in, tokens_out=reply.tokens_out, micro_usd=reply.micro_usd)
        output = secrets.unheld(parse_output(self._schema, reply.text))
        if isinstance(output, str) and reply.cut:
            detail = f"no end within {self._pack.max_tokens} tokens; raise max_tokens of pack {self._pack.name!r}"
            return Failed(id=ask.id, reason="invalid_output", detail=detail, usage=usage)
        if isinstance(output, str):
            return Failed(id=ask.id, reason="invalid_output", detail=output, retryable=True, usage=usage)
        label = output.get("label")
        if self._pack.labels and not (isinstance(label, str) and label in self._pack.labels):
            detail = f"{label!r} is none of the labels of pack {self._pack.name!r}"
            return Failed(id=ask.id, reason="invalid_output", detail=detail, retryable=True, usage=usage)
        checks = failed_checks(self._pack, output, text_of(self._pack, ask.input))
        agrees = None if not ask.earlier else float(ask.earlier[-1].output == output)
        return Answer(id=ask.id, output=output, usage=usage, signals=Signals(agreement=agrees, checks_failed=checks))

    async def rehearse(self) -> list[Rehearsed]:
        return []


def _json(value: object) -> str:
    """`value` as JSON that can be sent: half a surrogate pair, which UTF-8 cannot write, becomes a question mark."""
    return json.dumps(value, ensure_ascii=False).encode(errors="replace").decode()
