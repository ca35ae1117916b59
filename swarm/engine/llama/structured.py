"""Text that satisfies a JSON Schema or a regular expression, by masking tokens while they are chosen (llguidance).

JSON is written as `json.dumps` writes it: one space after `,` and `:`, none elsewhere. A small model that may choose
its own whitespace can spend all its tokens on it.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from swarm.engine.base import GenerateRequest
from swarm.errors import SchemaUnsupported

if TYPE_CHECKING:  # so that a schema can be checked without loading llama.cpp
    from swarm.engine.llama.model import Model

_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_KEPT_GRAMMARS = 64


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raises `SchemaUnsupported`, naming the cause, when `schema` cannot be enforced while decoding."""
    import llguidance

    try:
        grammar = _json_grammar(schema)
    except (TypeError, ValueError) as error:
        raise SchemaUnsupported(f"the JSON Schema is not plain JSON ({error}); write it with JSON types only") from None
    _validate(llguidance.LLMatcher.validate_grammar(grammar), "JSON Schema")


def check_regex(regex: str) -> None:
    """Raises `SchemaUnsupported` when `regex` cannot be enforced while decoding."""
    import llguidance

    _validate(llguidance.LLMatcher.validate_grammar(llguidance.LLMatcher.grammar_from_regex(regex)), "regex")


class Grammars:
    """Compiled constraints for one model. Thread-safe; the first use takes up to a second (it reads the vocabulary)."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._tokenizer: Any = None
        self._compiled: OrderedDict[str, Any] = OrderedDict()

    def matcher(self, request: GenerateRequest) -> Matcher:
        """A fresh matcher for the request's `schema` or `regex`. Raises `SchemaUnsupported`, `EngineClosed`."""
        import llguidance

        if request.schema is not None:
            check_schema(request.schema)
            grammar = _json_grammar(request.schema, after_word=request.prompt.answer_start[-1:].strip() != "")
        else:
            assert request.regex is not None
            check_regex(request.regex)
            grammar = llguidance.LLMatcher.grammar_from_regex(request.regex)
        with self._lock, self._model.reading():
            if grammar not in self._compiled:
                self._compiled[grammar] = self._compile(grammar)
            self._compiled.move_to_end(grammar)
            while len(self._compiled) > _KEPT_GRAMMARS:
                self._compiled.popitem(last=False)
            return Matcher(self._compiled[grammar].deep_copy())

    def _compile(self, grammar: str) -> Any:
        import llguidance

        if self._tokenizer is None:
            self._tokenizer = llguidance.LLTokenizer.from_llamacpp(
                tokens=self._model.spellings(),
                vocab_ptr=self._model.vocabulary,
                tokenize_fptr=self._model.tokenise_pointer,
                eos_token=[token for token in range(self._model.n_vocabulary) if self._model.is_end(token)],
                slices=None,
            )
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        _validate(matcher.get_error(), "constraint")
        return matcher


class Matcher:
    """Where one generation stands in its grammar."""

    def __init__(self, native: Any) -> None:
        self._native = native

    @property
    def complete(self) -> bool:
        """The grammar allows nothing more."""
        return bool(self._native.is_stopped())

    def allowed(self) -> NDArray[np.intp]:
        """Ids of the tokens that may come next, at least one; the model's end tokens where the text may end."""
        bits = np.frombuffer(self._native.compute_bitmask(), np.uint8)
        allowed = np.flatnonzero(np.unpackbits(bits, bitorder="little"))
        if not len(allowed):
            raise SchemaUnsupported(f"the constraint cannot be followed ({self._native.get_error()}); simplify it")
        return allowed

    def advance(self, token: int) -> list[int]:
        """Take the chosen token; returns those that the grammar forces after it, already taken."""
        if not self._native.consume_token(token):
            raise SchemaUnsupported(f"the constraint cannot be followed ({self._native.get_error()}); simplify it")
        return self.forced()

    def forced(self) -> list[int]:
        """Tokens that the grammar leaves no choice about, now taken."""
        tokens: list[int] = list(self._native.compute_ff_tokens())
        if tokens and not self._native.consume_tokens(tokens):
            raise SchemaUnsupported(f"the constraint cannot be followed ({self._native.get_error()}); simplify it")
        return tokens


def _json_grammar(schema: Mapping[str, Any], *, after_word: bool = False) -> str:
    """`after_word`: the text begins with the space that must not stand at the end of a prompt."""
    import llguidance

    text = json.dumps({**schema, "x-guidance": _LAYOUT}, allow_nan=False)
    if after_word:
        return str(llguidance.LLMatcher.grammar_from_lark(f'start: " " value\nvalue: %json {text}'))
    return str(llguidance.LLMatcher.grammar_from_json_schema(text))


def _validate(error: str, what: str) -> None:
    if error:
        cause = re.sub(r"\s+", " ", error.split("\n", 1)[0])
        raise SchemaUnsupported(f"{what}: {cause}; leave it out or check it after decoding")
