"""Requests drawn at random: every kind of work that an engine does, and much that it has to refuse."""

from __future__ import annotations

import json
import re
import string
from random import Random

import jsonschema
from msgspec.structs import replace

from swarm.engine.base import Generated, GenerateRequest, Origin, Prompt, Scored, ScoreRequest, Turn

LABELS = tuple(
    f" {topic}_{what}" for topic in ("card", "cash", "cart", "rate", "pin") for what in ("lost", "late", "?")
)
SCHEMAS = (
    {"enum": ["a", "ab", "abc"]},
    {
        "type": "object",
        "properties": {"name": {"type": ["string", "null"], "maxLength": 20}, "urgent": {"type": "boolean"}},
        "required": ["name", "urgent"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"type": "integer"}, "maxItems": 5},
    {"not": {}},  # is refused
)
REGEXES = ("[0-9]{4}-[0-9]{2}", "(yes|no|[a-z]{1,9})!", "ab*c")
_WORDS = ("card", "use", "the", "yes", "Größe", "42", "{", "<|im_end|>", "€", "\n", "No.", "in", "and", "system")


class RandomWork:
    """Draws requests for an engine with `context` tokens of memory, always the same ones for a seed."""

    def __init__(self, chance: Random, context: int) -> None:
        self._chance = chance
        self._context = context
        self._rules = tuple(self._text(30 + 10 * i) for i in range(6))  # more than are in memory at once

    def score(self) -> ScoreRequest:
        """Any measure, need, normalisation and calibration; now and then an option that no step can hold."""
        chance = self._chance
        options = tuple(chance.sample(LABELS, chance.randint(1, len(LABELS))))
        if chance.random() < 0.02:
            options += (self._noise(),)
        return ScoreRequest(
            self._prompt(),
            options,
            measure=chance.choice(("joint", "constrained")),
            need=chance.choice(("all", "margin", "best")),
            by_length=chance.random() < 0.5,
            prior=Prompt((Turn("user", chance.choice(_WORDS)),)) if chance.random() < 0.3 else None,
            origin=self._origin(),
        )

    def generate(self) -> GenerateRequest:
        """Free text or under a constraint, greedy or drawn, with drafts or without, with stop strings or without."""
        chance = self._chance
        request = GenerateRequest(
            self._prompt(),
            chance.choice((1, 4, 16, 40, 80)),
            stop=tuple(chance.sample(("e", "card", "th", "\n"), chance.choice((0, 0, 1, 2)))),
            temperature=chance.choice((0.0, 0.0, 0.7, 1.5)),
            seed=chance.randrange(2**32),
            draft=chance.random() < 0.7,
            origin=self._origin(),
        )
        match chance.choice(("text", "text", "schema", "regex")):
            case "schema":
                return replace(request, schema=chance.choice(SCHEMAS), stop=())
            case "regex":
                return replace(request, regex=chance.choice(REGEXES), stop=())
        return request

    def _prompt(self) -> Prompt:
        """Beginnings are shared with notice, by accident, or not at all."""
        chance = self._chance
        if chance.random() < 0.02:
            return Prompt((Turn("user", self._noise()),))
        message = Turn("user", self._text(chance.choice((1, 5, 20))))
        start = chance.choice(("", "", "So:", '{"'))
        if chance.random() < 0.3:
            return Prompt((message,), start)
        return Prompt((Turn("system", chance.choice(self._rules)), message), start, shared=chance.randint(0, 1))

    def _origin(self) -> Origin:
        chance = self._chance
        left_s = chance.choice((0.0, 0.001, 0.01, 0.1)) if chance.random() < 0.1 else None
        return Origin(chance.choice(("", "a", "b", "c")), chance.choice(("intent", "reply")), left_s)

    def _text(self, n_words: int) -> str:
        return " ".join(self._chance.choices(_WORDS, k=n_words))

    def _noise(self) -> str:
        """Too long for any memory of this size, whatever the vocabulary."""
        return "".join(self._chance.choices(string.printable, k=20 * self._context))


def check_scored(request: ScoreRequest, scored: Scored) -> None:
    """What holds for every answer to `request`, whatever the model thinks."""
    assert len(scored.logprobs) == len(scored.lengths) == len(scored.ranked) == len(request.options)
    assert max(scored.logprobs) < 1e-3 and 0 <= scored.margin <= 1
    assert request.need != "all" or all(scored.exact)


def check_generated(request: GenerateRequest, generated: Generated) -> None:
    """What holds for every text that `request` may get, whatever the model thinks."""
    assert generated.tokens_out <= request.max_tokens
    assert not any(stop in generated.text for stop in request.stop)
    if request.schema is not None:
        jsonschema.validate(json.loads(generated.text), request.schema)
    if request.regex is not None and generated.finish == "stop":
        assert re.fullmatch(request.regex, generated.text.strip())
