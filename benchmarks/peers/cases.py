"""The work: prompts with long shared beginnings, as a swarm's specialists write them. Everything here is made up.

No message comes twice in a run: a server that has just answered it would find it whole in its cache.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from peers.contestant import Ask
from peers.texts import DETAILS, EXAMPLES, EXAMPLES_77, FORMS, GREETINGS, MORE_EXAMPLES, OPTIONS_77, PROBLEMS
from swarm.engine.base import EngineSpec, Prompt, Turn
from swarm.engine.llama.model import Model

OPTIONS_10 = tuple(f" {label}" for label, _ in EXAMPLES)
FIELDS = ("name", "product", "amount", "date", "request")
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {field: {"type": "string"} for field in FIELDS},
        "required": list(FIELDS),
        "additionalProperties": False,
    }
)
_LABEL = "Answer with the label that fits best and nothing else."
_TOPICS = ("a lighthouse", "an old train", "the first winter", "two brothers", "a garden", "the night market")
_SHOWN_FORMS = 3
_PAD = " The desk answers within one working day and never asks for a password."


class Cases:
    """Writes requests for one family of models, in any number; each message is new."""

    def __init__(self, model: str, chat_format: str, labels: Path | None = None) -> None:
        """`labels`: a folder with train.jsonl.gz, whose labels are the 77 options."""
        self._model = Model.load(EngineSpec(model, chat_format))
        self._problems = _combined(GREETINGS, PROBLEMS, DETAILS)
        self._forms = islice(_combined(*FORMS), _SHOWN_FORMS, None)
        self._serial = 0
        self._many = OPTIONS_77 if labels is None else _labels(labels)

    def classify(self, n: int) -> list[Ask]:
        """A prefix of some 340 tokens (the labels, twelve examples), some 17 tokens of message, 10 options."""
        listed = ", ".join(label for label, _ in EXAMPLES)
        examples = _shown(EXAMPLES + MORE_EXAMPLES)
        system = f"You sort the messages that customers of a bank write. {_LABEL}\nLabels: {listed}.\n\n{examples}"
        return [self._choice(system, OPTIONS_10) for _ in range(n)]

    def options77(self, n: int) -> list[Ask]:
        """77 options with shared beginnings, not listed in the prompt."""
        examples = _shown(EXAMPLES_77)
        system = f"You sort the messages that customers of a bank write, by what they want. {_LABEL}\n\n{examples}"
        return [self._choice(system, self._many) for _ in range(n)]

    def extract(self, n: int) -> list[Ask]:
        """Five strings out of some 60 tokens, most of them copied."""
        shown = []
        for form in islice(_combined(*FORMS), _SHOWN_FORMS):
            answer = dict(zip(FIELDS, form, strict=True))
            shown.append(f"Message: {_form(form)}\nJSON: {json.dumps(answer)}")
        system = "You copy what a customer's message says into JSON.\n\n" + "\n\n".join(shown)
        pairs = ((Turn("system", system), Turn("user", f"Message: {_form(form)}")) for form in islice(self._forms, n))
        return [self.ask(pair, 1, "JSON:", 96, schema=SCHEMA) for pair in pairs]

    def story(self, max_tokens: int, temperature: float = 0.0) -> Ask:
        """A text that has no early end."""
        self._serial += 1
        topic = _TOPICS[self._serial % len(_TOPICS)]
        system = Turn("system", "You are a novelist. You write long, detailed stories.")
        user = Turn("user", f"Write chapter {self._serial} of a long novel about {topic}.")
        return self.ask((system, user), 1, "", max_tokens, temperature=temperature, seed=100 * self._serial)

    def long_prefix(self, tokens: int) -> Iterator[Ask]:
        """Questions after a shared beginning of about `tokens` tokens, one token of answer each."""
        text = "You are the help desk of a bank." + _PAD * round(tokens / self.count(_PAD))
        while True:
            yield self.ask((Turn("system", text), Turn("user", self._message())), 1, "", 1)

    def plain(self, tokens: int) -> list[int]:
        """Ordinary text of exactly this many tokens."""
        text = " ".join(message for _, message in EXAMPLES)
        return (self._model.tokenise(text) * (tokens // 64 + 1))[:tokens]

    def count(self, text: str) -> int:
        return len(self._model.tokenise(text))

    def ask(
        self, turns: tuple[Turn, ...], shared: int, answer_start: str, max_tokens: int,
        *, options: tuple[str, ...] = (), schema: str | None = None, temperature: float = 0.0, seed: int = 0,
    ) -> Ask:  # fmt: skip
        prompt = Prompt(turns, answer_start, shared)
        head, tail = self._model.render(prompt)
        return Ask(prompt, (*head, *tail), max_tokens, options, schema, temperature, seed)

    def close(self) -> None:
        self._model.close()

    def _choice(self, system: str, options: tuple[str, ...]) -> Ask:
        longest = max(map(self.count, options)) + 8  # a grammar leaves the way to cut an option into tokens open
        turns = (Turn("system", system), Turn("user", f"Message: {self._message()}"))
        return self.ask(turns, 1, "Label:", 2 * longest, options=options)

    def _message(self) -> str:
        return " ".join(next(self._problems))


def _shown(examples: tuple[tuple[str, str], ...]) -> str:
    return "\n".join(f"Message: {message}\nLabel: {label}" for label, message in examples)


def _combined(*lists: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every combination once, neighbours differing in every place; then again with a number behind it."""
    again = 0
    total = 1
    for each in lists:
        total *= len(each)
    while True:
        for number in range(total):
            left, row = (number * 7919) % total, []  # 7919 is a prime that no list's length has as a factor
            for each in lists:
                left, place = divmod(left, len(each))
                row.append(each[place])
            yield (*row, f"({again})") if again else tuple(row)
        again += 1


def _form(parts: tuple[str, ...]) -> str:
    name, product, amount, date, request, *rest = parts
    bought = f"Good day, my name is {name}. On {date} I bought a {product} in your shop and paid {amount} for it"
    trouble = "with my card, but since the first evening it has made trouble and your hotline did not help."
    return " ".join((bought, trouble, f"I {request}.", *rest))


def _labels(folder: Path) -> tuple[str, ...]:
    """The labels of a data set, written as words."""
    with gzip.open(folder / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        return tuple(sorted({" " + json.loads(line)["label"].replace("_", " ").lower() for line in lines}))
