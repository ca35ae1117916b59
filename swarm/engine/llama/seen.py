"""Which prompts begin alike, among those that wait, run or came lately.

Kept in lexical order: the longest beginning that a prompt shares with any other is shared with one of its neighbours.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence

import numpy as np

_KEPT = 2048  # prompts; four bytes a token


class Seen:
    """The last prompts, each as often as it came."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._ordered: list[bytes] = []
        self._by_age: deque[bytes] = deque()

    def add(self, prompt: Sequence[int]) -> None:
        """Remember a prompt's tokens; the oldest is forgotten when there are too many."""
        key = _key(prompt)
        insort(self._ordered, key)
        self._by_age.append(key)
        if len(self._by_age) > self._kept:
            del self._ordered[bisect_left(self._ordered, self._by_age.popleft())]

    def shared(self, prompt: Sequence[int]) -> int:
        """Tokens of the longest beginning that `prompt` has in common with another prompt than itself."""
        key = _key(prompt)
        place = bisect_left(self._ordered, key)
        after = place + 1 if place < len(self._ordered) and self._ordered[place] == key else place
        neighbours = self._ordered[max(0, place - 1) : place] + self._ordered[after : after + 1]
        return max((common(key, other) // 4 for other in neighbours), default=0)


def common(one: Sequence[int] | bytes, other: Sequence[int] | bytes) -> int:
    """Length of the longest common beginning of two sequences of the same type."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while low < high - 1:  # one[:low] == other[:low], one[:high] != other[:high]
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _key(prompt: Sequence[int]) -> bytes:
    """Four bytes a token, most significant first: bytes and tokens are in the same order."""
    return np.asarray(prompt, ">i4").tobytes()
