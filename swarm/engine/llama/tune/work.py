"""The work that settings are measured by: what a swarm asks of a small model, made of the catalogue's packs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from protocols.packs import Pack
from protocols.work import GenerateRequest, Prompt, ScoreRequest, Turn
from swarm.engine.llama.tune.measure import Job

_SHOTS = 6  # examples in the part of a prompt that all messages share: about 300 tokens with the instructions
_OPTIONS = 10
_ANSWER_TOKENS = 32
_TEXTS = 16  # of which the log-probability is taken
_NOTE = {
    "type": "object",
    "properties": {
        "urgent": {"type": "boolean"},
        "summary": {"type": "string", "minLength": 24, "maxLength": 40},
    },
    "required": ["urgent", "summary"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class TuneWork:
    """Jobs over the classify packs among `packs`.

    What is random depends on the name of a round only: every setting does the same work in it, and each message begins
    with a number of the round, so that nothing is found in a cache that an earlier round has filled.
    """

    packs: Sequence[Pack]

    @cached_property
    def questions(self) -> tuple[ScoreRequest, ...]:
        """A classification for each example that no prompt shows, in an order that mixes the packs."""
        asked = [request for pack in self._classify for request in _questions(pack)]
        random.Random(0).shuffle(asked)
        return tuple(asked)

    @cached_property
    def texts(self) -> Job:
        """Scores some examples' texts themselves: their mean log-probability tells what a format has lost."""
        texts = random.Random(1).sample(self._messages, min(_TEXTS, len(self._messages)))
        start = Prompt((Turn("user", "Write a message to the support of a shop."),), shared=1)
        return Job(score=tuple(ScoreRequest(start, (f" {text}",)) for text in texts))

    def classify(self, name: str, messages: int) -> Job:
        """Many short messages, one shared beginning, ten options."""
        pack = max(self._classify, key=lambda pack: len(pack.labels))
        return Job(score=tuple(_asked(pack, _drawn(_texts(pack), messages, name))))

    def generate(self, name: str, answers: int) -> Job:
        """Several short answers under a schema."""
        system = Turn("system", "You sum up a customer's message in a few words, as JSON.")
        texts = _drawn(self._messages, answers, name)
        prompts = (Prompt((system, Turn("user", f"Message: {text}")), shared=1) for text in texts)
        return Job(generate=tuple(GenerateRequest(prompt, _ANSWER_TOKENS, schema=_NOTE) for prompt in prompts))

    @cached_property
    def _classify(self) -> list[Pack]:
        return [pack for pack in self.packs if pack.kind == "classify" and len(pack.labels) > 1]

    @cached_property
    def _messages(self) -> list[str]:
        return [text for pack in self._classify for text in _texts(pack)]


def _texts(pack: Pack) -> list[str]:
    return [str(example.input[pack.input[0]]) for example in pack.examples]


def _drawn(texts: Sequence[str], count: int, name: str) -> list[str]:
    """Some of the texts, each made new by a number."""
    chance = random.Random(name)
    number = chance.randint(10_000, 99_999)
    return [f"{number}, {text}" for text in chance.sample(texts, count)]


def _questions(pack: Pack) -> list[ScoreRequest]:
    """Which label? Asked of each example that the prompt does not show."""
    shown = {pack.examples[place].input[pack.input[0]] for place in _shown(pack)}
    return _asked(pack, [text for text in _texts(pack) if text not in shown])


def _asked(pack: Pack, texts: Sequence[str]) -> list[ScoreRequest]:
    labels = tuple(pack.labels)[:_OPTIONS]
    options = tuple(f" {_spoken(label)}" for label in labels)
    turns = [Turn("system", f"{pack.instructions}\nLabels:{','.join(options)}")]
    for place in _shown(pack):
        example = pack.examples[place]
        turns.append(Turn("user", f"Message: {example.input[pack.input[0]]}"))
        turns.append(Turn("assistant", f"Label: {_spoken(str(example.output['label']))}"))
    prompts = (
        Prompt((*turns, Turn("user", f"Message: {text}")), answer_start="Label:", shared=len(turns)) for text in texts
    )
    return [ScoreRequest(prompt, options) for prompt in prompts]


def _shown(pack: Pack) -> list[int]:
    """Places of the first example of each label, of as many labels as there is room for."""
    outputs = [example.output.get("label") for example in pack.examples]
    return [outputs.index(label) for label in pack.labels if label in outputs][:_SHOTS]


def _spoken(label: str) -> str:
    return label.replace("_", " ")
