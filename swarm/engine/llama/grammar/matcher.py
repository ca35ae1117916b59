"""Where one text stands in its constraint: what may come next, what must, and how it can be brought to an end."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from swarm.engine.llama.sampling import Mask
from swarm.errors import SchemaUnsupported

_LONGEST_CAUSE = 200  # characters


Closing = Callable[[Sequence[int]], list[int] | None]


class Matcher:
    """Where one generation stands in its grammar.

    What offers or takes tokens raises `SchemaUnsupported` where the grammar cannot be followed.
    """

    def __init__(self, native: Any, close: Closing | None = None) -> None:
        self.native = native
        self._close = close

    @property
    def complete(self) -> bool:
        """The grammar allows nothing more."""
        return bool(self.native.is_stopped())

    @property
    def accepting(self) -> bool:
        """The text may end here."""
        return bool(self.native.is_accepting())

    def copy(self) -> Matcher:
        """Another one that stands at the same place and goes its own way."""
        return Matcher(self.native.deep_copy(), self._close)

    def allowed(self) -> Mask:
        """The tokens that may come next, at least one; the model's end tokens where the text may end."""
        mask = Mask(self.native.compute_bitmask())
        self._check(not self.native.is_error())
        return mask

    def valid(self, tokens: list[int]) -> int:
        """How many of `tokens` may come next, one after the other."""
        return int(self.native.validate_tokens(tokens))

    def advance(self, token: int) -> list[int]:
        """Take the chosen token; returns those that the grammar forces after it, already taken."""
        self._check(self.native.consume_token(token))
        return self.forced()

    def forced(self) -> list[int]:
        """Tokens that the grammar leaves no choice about, now taken."""
        tokens: list[int] = list(self.native.compute_ff_tokens())
        self.take(tokens)
        return tokens

    def take(self, tokens: Sequence[int]) -> None:
        """Go on by `tokens`, which are allowed."""
        if tokens:
            self._check(self.native.consume_tokens(list(tokens)))

    def closed(self, tokens: Sequence[int]) -> list[int] | None:
        """`tokens` from the beginning, cut and ended so that the constraint is satisfied within the request's limit.

        `None` when no such end is known, which a schema's matcher never says.
        """
        return self._close(tokens) if self._close else None

    def _check(self, followed: bool) -> None:
        if not followed:
            cause = one_line(self.native.get_error())
            raise SchemaUnsupported(f"the constraint cannot be followed ({cause}); simplify it")


def one_line(error: str) -> str:
    """What llguidance says, without the state of its parser."""
    return re.sub(r"\s+", " ", error.split("\n<state>", 1)[0])[:_LONGEST_CAUSE].strip()
