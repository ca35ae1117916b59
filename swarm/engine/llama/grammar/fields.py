"""Which field of a JSON object a token belongs to, so that each field has a log-probability of its own."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable

_QUOTE, _ESCAPE, _COLON, _COMMA = b'"\\:,'
_OPENING, _CLOSING = b"{[", b"}]"


def field_means(pieces: Iterable[tuple[bytes, float | None]]) -> dict[str, float]:
    """Mean log-probability (nats) of each top-level field's tokens.

    `pieces`: the text's tokens in order, as bytes, each with its log-probability or `None` for one that was no choice.
    A token counts for the field that its first byte stands in, or its last if that is in none. Fields that were no
    choice at all, and text that is no object, have no mean.
    """
    found: dict[str, list[float]] = defaultdict(list)
    place = _Place()
    for piece, logprob in pieces:
        before = place.field
        place.read(piece)
        field = before if before is not None else place.field
        if field is not None and logprob is not None:
            found[field].append(logprob)
    return {field: sum(values) / len(values) for field, values in found.items()}


class _Place:
    """Where JSON text has come to. `field`: the top-level field whose value is being written."""

    def __init__(self) -> None:
        self.field: str | None = None
        self._depth = 0
        self._in_object = False  # the outermost value is an object
        self._string: bytearray | None = None  # the string that is being read
        self._escaped = False
        self._last = b'""'  # the string that was read last

    def read(self, text: bytes) -> None:
        for byte in text:
            if self._string is None:
                self._mark(byte)
            else:
                self._letter(self._string, byte)

    def _letter(self, string: bytearray, byte: int) -> None:
        string.append(byte)
        if self._escaped or byte == _ESCAPE:
            self._escaped = not self._escaped
        elif byte == _QUOTE:
            self._last, self._string = bytes(string), None

    def _mark(self, byte: int) -> None:
        if byte == _QUOTE:
            self._string = bytearray((byte,))
        elif byte in _OPENING:
            self._in_object = self._in_object or (self._depth == 0 and byte == _OPENING[0])
            self._depth += 1
        elif byte in _CLOSING:
            self._depth -= 1
        if self._depth == 1 and self._in_object and byte == _COLON:
            self.field = json.loads(self._last)
        elif self._depth == 0 or (self._depth == 1 and byte == _COMMA):
            self.field = None
