"""Which prompts begin alike, among those that wait, run or came lately.

Kept in lexical order: the longest beginning that a prompt shares with any other is shared with one of its neighbours,
and the further away another one stands, the less they share.
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
        key = key_of(prompt)
        insort(self._ordered, key)
        self._by_age.append(key)
        if len(self._by_age) > self._kept:
            del self._ordered[bisect_left(self._ordered, self._by_age.popleft())]

    def shared(self, prompt: Sequence[int], known: int = 0) -> tuple[int, int]:
        """Up to where `prompt` is best shared, and what that saves: (tokens, tokens not decoded again).

        Beyond the `known` tokens, which are shared already. A beginning saves its tokens once for every other prompt
        that has it, so a shorter one that many have may be worth more than a longer one that few have.
        """
        key = key_of(prompt)
        place = bisect_left(self._ordered, key)
        itself = place < len(self._ordered) and self._ordered[place] == key
        best = (known, 0)
        for direction, start in ((-1, place - 1), (1, place + itself)):
            away = 1
            while 0 <= (at := start + direction * (away - 1)) < len(self._ordered):
                tokens = common(key, self._ordered[at]) // 4
                if tokens <= known:
                    break
                best = max(best, (tokens, away * (tokens - known)), key=lambda found: found[1])
                away *= 2
        return best


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


def key_of(prompt: Sequence[int]) -> bytes:
    """Four bytes a token, most significant first: bytes and tokens are in the same order."""
    return np.asarray(prompt, ">i4").tobytes()
