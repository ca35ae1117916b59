"""Text that satisfies a JSON Schema or a regular expression, by masking tokens while they are chosen (llguidance).

JSON is written as `json.dumps` writes it: one space after `,` and `:`, none elsewhere. A small model that may choose
its own whitespace can spend all its tokens on it.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from swarm.engine.base import GenerateRequest
from swarm.engine.llama.grammar.closing import Lexicon, WayOut, way_out
from swarm.engine.llama.grammar.keywords import Place, check_keywords
from swarm.engine.llama.grammar.matcher import Matcher, one_line
from swarm.errors import SchemaUnsupported

if TYPE_CHECKING:  # so that a schema can be checked without loading llama.cpp
    from swarm.engine.llama.model import Model

__all__ = ["Compiler", "Grammars", "Matcher", "byte_compiler", "check_regex", "check_schema"]

_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_KEPT_GRAMMARS = 64
_LONGEST_REGEX = 4096  # characters
_MOST_ITEMS = 8_000  # ways that a grammar may go on at a time: the largest schema allowed needs half of it


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raises `SchemaUnsupported`, naming place and remedy, when `schema` cannot be enforced while decoding.

    It has a keyword that is not enforced, is too large, or no JSON was found that satisfies it.
    """
    check_keywords(schema)
    grammar = _json_grammar(schema)
    if error := _error(grammar):
        place = _innermost(schema, error)
        if error.startswith("oneOf"):
            raise place.refused("schemas that may overlap cannot be told apart while decoding; say anyOf", "oneOf")
        raise place.refused(f"{error}; leave it out or check it after decoding")
    if byte_compiler().shortest(grammar) is None:
        raise SchemaUnsupported("JSON Schema: no JSON was found that satisfies it; require less, or end its $ref")


def check_regex(regex: str) -> None:
    """Raises `SchemaUnsupported` when `regex` cannot be enforced while decoding."""
    import llguidance

    if len(regex) > _LONGEST_REGEX:
        raise SchemaUnsupported(f"regex of {len(regex):,} characters: the limit is {_LONGEST_REGEX:,}; shorten it")
    if error := _error(llguidance.LLMatcher.grammar_from_regex(regex)):
        raise SchemaUnsupported(f"regex: {error}; leave it out or check it after decoding")


class Grammars:
    """Compiled constraints for one model. Thread-safe; the first use takes up to a second (it reads the vocabulary)."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._compiler: Compiler | None = None

    def matcher(self, request: GenerateRequest) -> Matcher:
        """A fresh matcher for the request's `schema` or `regex`.

        Raises `EngineClosed`, and `SchemaUnsupported` also when no JSON that satisfies the schema is known to fit
        `max_tokens`.
        """
        with self._lock, self._model.reading():
            if self._compiler is None:
                self._compiler = Compiler(*_tokenizer(self._model))
            return self._compiler.matcher(request)


class Compiler:
    """Makes matchers of requests, for one llguidance tokenizer. `spellings`: the bytes of every token."""

    def __init__(self, tokenizer: Any, spellings: Sequence[bytes]) -> None:
        self._tokenizer = tokenizer
        self._lexicon = Lexicon(spellings)
        self._compiled: OrderedDict[str, _Compiled] = OrderedDict()

    def matcher(self, request: GenerateRequest) -> Matcher:
        """As `Grammars.matcher`."""
        if request.stop:
            raise ValueError("a request with a schema or a regex has stop strings; the constraint says where it ends")
        compiled = self._compile(request)
        shortest = compiled.shortest
        if request.schema is not None and shortest is None:
            raise SchemaUnsupported("JSON Schema: no JSON of this model's tokens was found for it; require less")
        if shortest is not None and len(shortest) > request.max_tokens:
            if request.schema is not None:
                raise SchemaUnsupported(
                    f"JSON Schema: the shortest JSON found that satisfies it has {len(shortest)} tokens, max_tokens is "
                    f"{request.max_tokens}; raise max_tokens or require less"
                )
            shortest = None
        way = WayOut(compiled.start, self._lexicon, shortest, request.max_tokens)
        return Matcher(compiled.start.native.deep_copy(), way.close)

    def shortest(self, grammar: str) -> tuple[int, ...] | None:
        """Tokens of a short text of the grammar, as few as were found."""
        return way_out(self._start(grammar), self._lexicon)

    def _compile(self, request: GenerateRequest) -> _Compiled:
        grammar = _grammar(request)
        if grammar not in self._compiled:
            if request.schema is not None:
                check_schema(request.schema)
            elif request.regex is not None:
                check_regex(request.regex)
            start = self._start(grammar)
            self._compiled[grammar] = _Compiled(start, way_out(start, self._lexicon))
        self._compiled.move_to_end(grammar)
        while len(self._compiled) > _KEPT_GRAMMARS:
            self._compiled.popitem(last=False)
        return self._compiled[grammar]

    def _start(self, grammar: str) -> Matcher:
        import llguidance

        limits = llguidance.LLParserLimits(max_items_in_row=_MOST_ITEMS)
        native = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
        if error := native.get_error():
            raise SchemaUnsupported(f"the constraint cannot be followed ({one_line(error)}); simplify it")
        return Matcher(native)


@dataclass(frozen=True, slots=True)
class _Compiled:
    start: Matcher
    shortest: tuple[int, ...] | None  # a short text that satisfies the constraint


def _tokenizer(model: Model) -> tuple[Any, list[bytes]]:
    import llguidance

    spellings = model.spellings()
    tokenizer = llguidance.LLTokenizer.from_llamacpp(
        tokens=spellings,
        vocab_ptr=model.vocabulary,
        tokenize_fptr=model.tokenise_pointer,
        eos_token=[token for token in range(model.n_vocabulary) if model.is_end(token)],
        slices=None,
    )
    return tokenizer, spellings


def _grammar(request: GenerateRequest) -> str:
    import llguidance

    if request.schema is not None:
        return _json_grammar(request.schema, after_word=request.prompt.answer_start[-1:].strip() != "")
    assert request.regex is not None
    return str(llguidance.LLMatcher.grammar_from_regex(request.regex))


def _json_grammar(schema: Mapping[str, Any], *, after_word: bool = False) -> str:
    """`after_word`: the text begins with the space that must not stand at the end of a prompt."""
    import llguidance

    # Another draft of JSON Schema, or another base of its references, would change what the rest means.
    plain = {keyword: value for keyword, value in schema.items() if keyword not in ("$schema", "$id")}
    text = json.dumps({**plain, "x-guidance": _LAYOUT})
    if after_word:
        return str(llguidance.LLMatcher.grammar_from_lark(f'start: " " value\nvalue: %json {text}'))
    return str(llguidance.LLMatcher.grammar_from_json_schema(text))


def _error(grammar: str) -> str:
    import llguidance

    return one_line(llguidance.LLMatcher.validate_grammar(grammar))


def _innermost(schema: Mapping[str, Any], error: str) -> Place:
    """The smallest schema in `schema` of which llguidance says the same."""
    shared = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    places = Place({keyword: value for keyword, value in schema.items() if keyword not in shared}).everything()
    guilty = [place for place in places if _error(_json_grammar({**shared, **place.schema})) == error]
    return max(guilty, key=lambda place: place.depth, default=Place(schema))


@lru_cache(1)
def byte_compiler() -> Compiler:
    """A compiler for a vocabulary of bytes, 261 being its end: for what needs no model."""
    import llguidance

    tokenizer = llguidance.LLTokenizer("byte")
    others = [b"\xff"] * (tokenizer.vocab_size - 256)
    return Compiler(tokenizer, [bytes((byte,)) for byte in range(256)] + others)
