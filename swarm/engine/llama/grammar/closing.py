"""Bringing a text under a constraint to an end that the constraint accepts, within so many tokens.

A grammar says what may come next, not what leads to an end. A short way out is therefore searched: always on with the
token that is likeliest to end something, by a few ways that differ where nothing speaks for one token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from swarm.engine.llama.grammar.matcher import Matcher
from swarm.engine.llama.sampling import Mask
from swarm.errors import SchemaUnsupported

_WAYS, _STEPS = 4, 2048  # ways tried, and choices on each: from the beginning, once a constraint
_WAYS_CUT, _STEPS_CUT = 2, 64  # and from within a cut text, while others wait for the engine
_ATTEMPTS = 8  # places of a cut text from which its end is searched
_FEW = 16  # allowed tokens of which each is tried
_SOME = 4  # of more than these, as many are tried
_LONGEST = 8  # bytes of a token that ends something
_RECENT = 16  # tokens among which one that was taken before is put off
_SEPARATOR, _VALUE, _STRING, _FILLER, _OTHER = range(1, 6)  # prices; closing brackets and quotes are below these
_VALUES = (b"null", b"0", b"1", b'""', b"[]", b"{}", b"true", b"false")
_FILLERS = b".-0:/@A a"  # characters that patterns often wait for


class Lexicon:
    """The tokens of a vocabulary that help to end a text. Each has a price: the lower, the sooner it is tried."""

    def __init__(self, spellings: Sequence[bytes]) -> None:
        self.spellings = spellings
        words = [token for token, spelling in enumerate(spellings) if spelling.isalpha()]
        longest = sorted(words, key=lambda token: -len(spellings[token]))[:_SOME]  # fill a least length soonest
        singles = [token for token, spelling in enumerate(spellings) if len(spelling) == 1 and spelling in _FILLERS]
        fillers = dict.fromkeys((*singles, *longest), _FILLER)
        self._outside = fillers | _priced(spellings, _price_outside)
        self._in_string = fillers | _priced(spellings, _price_in_string)

    def next(self, allowed: Mask, path: Sequence[int], in_string: bool, turn: int) -> int:
        """The token to try. Of several that are equally good, `turn` decides."""
        prices = self._in_string if in_string else self._outside
        found = [(price, token) for token, price in prices.items() if token in allowed]
        if not found or min(found)[0] >= _VALUE:
            others = allowed.tokens
            if len(others) > _FEW:
                others = others[:: -(-len(others) // _SOME)]
            found += [(_OTHER, token) for token in map(int, others) if token not in prices]
            recent = path[-_RECENT:]
            found = [(price + recent.count(token), token) for price, token in found]
        best = min(found)[0]
        equal = [token for price, token in found if price == best]
        return equal[turn % len(equal)]

    def spell(self, tokens: Sequence[int]) -> bytes:
        """The bytes of `tokens` in a row."""
        return b"".join(self.spellings[token] for token in tokens)


def way_out(
    matcher: Matcher, lexicon: Lexicon, text: bytes = b"", ways: int = _WAYS, steps: int = _STEPS
) -> tuple[int, ...] | None:
    """Few tokens that bring `matcher` to an accepted end after `text`; not always the fewest that would.

    `None` when none were found by `ways` ways of `steps` choices each: they are too long, or lead to what the grammar
    cannot follow or the vocabulary cannot spell. `matcher` stays as it is.
    """
    found = (_follow(matcher.copy(), lexicon, text, turn, steps) for turn in range(ways))
    return min((way for way in found if way is not None), key=len, default=None)


def _follow(matcher: Matcher, lexicon: Lexicon, text: bytes, turn: int, steps: int) -> tuple[int, ...] | None:
    try:
        path = matcher.forced()
        for _ in range(steps):
            if matcher.accepting:
                return tuple(path)
            in_string = _quotes(text + lexicon.spell(path)) % 2 == 1
            token = lexicon.next(matcher.allowed(), path, in_string, turn)
            path += [token, *matcher.advance(token)]
    except SchemaUnsupported:  # a way that ends nowhere
        pass
    return None


class WayOut:
    """How a text that has to end within `most` tokens can still satisfy its constraint.

    The shortest text known is a way out at all times, so the end is looked for only when a text has to be cut.
    """

    def __init__(self, start: Matcher, lexicon: Lexicon, shortest: Sequence[int] | None, most: int) -> None:
        """`start`: the matcher before the first token. `shortest`: a whole text of at most `most` tokens, if known."""
        self._start = start.copy()
        self._lexicon = lexicon
        self._shortest = shortest
        self._most = most

    def close(self, tokens: Sequence[int]) -> list[int] | None:
        """At most `most` tokens that satisfy the constraint and begin with as many of `tokens` as was found to work.

        `None` when no way out is known.
        """
        kept = len(tokens)
        for attempt in range(_ATTEMPTS):
            if kept <= 0:
                break
            way = self._from(tokens[:kept])
            if way is not None and kept + len(way) <= self._most:
                return [*tokens[:kept], *way]
            # The way may grow as the text gets shorter: from each attempt on, further back.
            kept = kept // 2 if way is None else min(kept - 2**attempt, self._most - len(way))
        return None if self._shortest is None else list(self._shortest)

    def _from(self, tokens: Sequence[int]) -> tuple[int, ...] | None:
        matcher = self._start.copy()
        matcher.take(tokens)
        return way_out(matcher, self._lexicon, self._lexicon.spell(tokens), _WAYS_CUT, _STEPS_CUT)


def _priced(spellings: Sequence[bytes], price: Callable[[bytes], int | None]) -> dict[int, int]:
    prices = ((token, price(spelling)) for token, spelling in enumerate(spellings) if len(spelling) <= _LONGEST)
    return {token: found for token, found in prices if found is not None}


def _price_outside(spelling: bytes) -> int | None:
    """Of a token outside of strings: brackets close, the more the better; then separators, then the shortest values."""
    bare = spelling.strip(b" ")
    if bare and not bare.strip(b"]}"):
        return -len(bare)
    if bare in _VALUES:
        return _VALUE
    if bare == b'"':
        return _STRING
    return _SEPARATOR if spelling and not spelling.strip(b",: ") else None


def _price_in_string(spelling: bytes) -> int | None:
    """Of a token inside a string: the quote that ends it, best with brackets that close more."""
    if not spelling.startswith(b'"') or spelling[1:].strip(b"]},: "):
        return None
    return _SEPARATOR if spelling[1:].strip(b"]}") else -len(spelling)


def _quotes(text: bytes) -> int:
    """Quotes that begin or end a JSON string."""
    return re.sub(rb"\\.", b"", text, flags=re.DOTALL).count(b'"')
