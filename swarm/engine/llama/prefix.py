"""The prefix cache: prompts that begin with the same shared turns find them decoded.

A prefix has a sequence of its own; a request forks it, which copies nothing. A prefix that a request builds on is
never evicted; of the others the one that was used longest ago goes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Prefix:
    """Tokens at the start of prompts. `decoded` counts those already in memory, `users` the requests building on it."""

    tokens: tuple[int, ...]
    sequence: int
    decoded: int = 0
    users: int = 0

    @property
    def ready(self) -> bool:
        return self.decoded == len(self.tokens)


@dataclass(slots=True)
class PrefixCache:
    """All prefixes in memory, the least recently used first."""

    _by_tokens: dict[tuple[int, ...], Prefix] = field(default_factory=dict)
    cells: int = 0  # KV cells that the prefixes hold or have reserved

    def __len__(self) -> int:
        return len(self._by_tokens)

    def __iter__(self) -> Iterator[Prefix]:
        return iter(self._by_tokens.values())

    def __contains__(self, tokens: object) -> bool:
        return tokens in self._by_tokens

    def acquire(self, tokens: tuple[int, ...]) -> Prefix | None:
        """The prefix of these tokens with one more user, now the most recently used; `None` when there is none."""
        prefix = self._by_tokens.pop(tokens, None)
        if prefix is not None:
            self._by_tokens[tokens] = prefix
            prefix.users += 1
        return prefix

    def add(self, tokens: tuple[int, ...], sequence: int) -> Prefix:
        """A new prefix with one user; its tokens are still to be decoded."""
        assert tokens not in self._by_tokens
        prefix = Prefix(tokens, sequence, users=1)
        self._by_tokens[tokens] = prefix
        self.cells += len(tokens)
        return prefix

    def idle(self, besides: tuple[int, ...] = ()) -> Prefix | None:
        """The least recently used prefix that nobody builds on, other than that of the tokens `besides`."""
        return next((prefix for prefix in self if not prefix.users and prefix.tokens != besides), None)

    def remove(self, prefix: Prefix) -> None:
        """Forget it; the caller frees its sequence."""
        del self._by_tokens[prefix.tokens]
        self.cells -= len(prefix.tokens)
