"""The engine's answers against those of llama-cpp-python's `Llama`, which runs one sequence at a time.

Both read the same token ids. Compared are greedy texts, the label under a grammar of the options (ours: a regex of the
same options), and the parsed values of JSON under a schema (llama.cpp's grammar leaves whitespace open, so that the
texts may be laid out differently). The weights are unpacked to 32 bits first: with quantised ones llama.cpp's logits
depend on how many tokens it decodes together. What remains is rounding, by which two tokens that are almost equally
likely may change places: a text counts as equal up to there, if its first other token is that close.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import llama_cpp
import numpy as np
import pytest
from llama_cpp.llama_grammar import LlamaGrammar

from swarm.engine.base import EngineSpec, GenerateRequest, Prompt, Turn
from swarm.engine.llama.engine import LlamaEngine
from swarm.engine.llama.model import Model

pytestmark = pytest.mark.live

CLOSE = 0.02  # nats between two tokens that rounding may swap
QUESTIONS = (
    "Name three rivers of Europe.",
    "Why is the sky blue?",
    "Write a short poem about a lighthouse.",
    "What is 12 times 12?",
    "Give me a recipe with eggs.",
    "Translate 'good morning' to French.",
    "Who wrote Hamlet?",
    "List the days of the week.",
)
LABELS = (" card lost at home", " card lost abroad", " card not arrived", " transfer missing", " limit too low")
MESSAGES = (
    "I cannot find my card in the flat.",
    "My purse with the card was stolen in Spain.",
    "Where is the card I ordered?",
    "The rent never reached my landlord.",
    "I want to pay for a flight and cannot.",
    "¿Dónde está mi tarjeta?",
)
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "city": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "city", "age"],
    "additionalProperties": False,
}
PEOPLE = (("Anna", "Oslo", 34), ("Marco", "Turin", 51), ("Leila", "Beirut", 28), ("Tomas", "Brno", 46))


@dataclass(frozen=True)
class Pair:
    """One model, opened by both."""

    engine: LlamaEngine
    model: Model
    llama: llama_cpp.Llama

    def written(self, prompt: Prompt, most: int, grammar: LlamaGrammar | None = None) -> list[int]:
        """The tokens that `Llama` chooses greedily, without the one that ends the text."""
        chosen: list[int] = []
        for token in self.llama.generate(self.tokens(prompt), temp=0.0, grammar=grammar):
            if self.model.is_end(token):
                break
            chosen.append(token)
            if len(chosen) == most:
                break
        return chosen

    def difference(self, prompt: Prompt, ours: str, theirs: list[int]) -> float | None:
        """`None` when the texts are equal; else by how many nats the first token of ours that differs is less likely.

        In a text that ours ended there, that token is the end of the text.
        """
        if self.model.detokenise(theirs).decode("utf-8", "ignore") == ours:  # a character may be cut at the end
            return None
        text = ours.encode()
        same = max(n for n in range(len(theirs) + 1) if text.startswith(self.model.detokenise(theirs[:n])))
        rest = text[len(self.model.detokenise(theirs[:same])) :]
        logits = self.logits(self.tokens(prompt) + theirs[:same])
        nexts = [
            token
            for token in range(self.model.n_vocabulary)
            if (self.model.is_end(token) if not rest else (piece := self.model.piece(token)) and rest.startswith(piece))
        ]
        top = logits[theirs[same]] if same < len(theirs) else logits.max()
        return float(top - logits[nexts].max())

    def tokens(self, prompt: Prompt) -> list[int]:
        shared, rest = self.model.render(prompt)
        return shared + rest

    def logits(self, tokens: list[int]) -> np.ndarray:
        self.llama.reset()
        self.llama.eval(tokens)
        pointer = llama_cpp.llama_get_logits_ith(self.llama.ctx, -1)
        return np.ctypeslib.as_array(pointer, (self.model.n_vocabulary,)).astype(np.float64)


@pytest.fixture(scope="module")
def pair(smollm2_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    path = str(tmp_path_factory.mktemp("unpacked") / "model.gguf")
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.allow_requantize = llama_cpp.LLAMA_FTYPE_ALL_F32, True
    assert llama_cpp.llama_model_quantize(smollm2_path.encode(), path.encode(), ctypes.byref(parameters)) == 0
    spec = EngineSpec(path, "chatml", threads=1, context=2048)
    llama = llama_cpp.Llama(path, n_ctx=1024, n_threads=1, n_threads_batch=1, flash_attn=True, verbose=False)
    found = Pair(LlamaEngine.open(spec), Model.load(spec), llama)
    yield found
    found.engine.close()
    found.model.close()
    llama.close()


def asked(system: str, text: str, answer_start: str = "") -> Prompt:
    return Prompt((Turn("system", system), Turn("user", text)), answer_start, 1)


async def test_greedy_texts_are_those_of_llama(pair: Pair) -> None:
    """Eight texts written in one batch are the texts that `Llama` writes one after the other."""
    prompts = [asked("You are a helpful assistant.", question) for question in QUESTIONS]
    requests = [GenerateRequest(prompt, max_tokens=24) for prompt in prompts]
    ours = await asyncio.gather(*map(pair.engine.generate, requests))
    differences = [
        pair.difference(prompt, text.text, pair.written(prompt, 24)) for prompt, text in zip(prompts, ours, strict=True)
    ]
    assert [d for d in differences if d is not None and d > CLOSE] == []
    assert differences.count(None) > len(QUESTIONS) // 2


async def test_labels_are_those_of_llama_under_a_grammar(pair: Pair) -> None:
    """A choice written under a regex is the label that `Llama` writes under a grammar of the same options."""
    grammar = LlamaGrammar.from_string("root ::= " + " | ".join(map(json.dumps, LABELS)), verbose=False)
    regex = "|".join(map(re.escape, LABELS))
    prompts = [asked("Sort the messages of a bank's customers.", message, "Label:") for message in MESSAGES]
    ours = await asyncio.gather(*(pair.engine.generate(GenerateRequest(p, 16, regex=regex)) for p in prompts))
    assert {text.text for text in ours} <= set(LABELS)
    theirs = [pair.model.detokenise(pair.written(prompt, 16, grammar)).decode() for prompt in prompts]
    assert [text.text for text in ours] == theirs


async def test_json_holds_the_values_of_llama_under_a_schema(pair: Pair) -> None:
    """An object written under a schema holds the values that `Llama` writes under the same one."""
    shown = "Message: I am Eva, 40, from Graz.\nJSON: " + json.dumps({"name": "Eva", "city": "Graz", "age": 40})
    prompts = [
        asked(
            f"You copy what a message says into JSON.\n\n{shown}", f"Message: I am {name}, {age}, from {city}.", "JSON:"
        )
        for name, city, age in PEOPLE
    ]
    grammar = LlamaGrammar.from_json_schema(json.dumps(SCHEMA), verbose=False)
    ours = await asyncio.gather(*(pair.engine.generate(GenerateRequest(p, 48, schema=SCHEMA)) for p in prompts))
    theirs = [pair.model.detokenise(pair.written(prompt, 48, grammar)).decode() for prompt in prompts]
    assert [json.loads(text.text) for text in ours] == [json.loads(text) for text in theirs]
