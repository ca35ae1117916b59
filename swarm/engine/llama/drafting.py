"""Tokens guessed from what the text repeats, so that one step can write several (prompt lookup decoding).

A guess costs nothing to make and is checked by the step that decodes it: the model's own choice is read from every
row, and the first that differs ends the guess. The text is the same as without. Method: Saxena, "Prompt Lookup
Decoding" (2023); the check is that of Leviathan et al., "Fast Inference from Transformers via Speculative Decoding"
(ICML 2023), where the guess is certain of itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

LONGEST = 8  # tokens guessed for one step
STEP_COST = 1.0  # what a step costs beyond its tokens, in tokens: measured with one thread on a CPU; more where memory
# is slow against arithmetic
_FIRST = 4  # tokens of a text's first guess
_ENDINGS = (48, 24, 12, 6, 3)  # bytes that have to be the same, the longest first
_WEIGHT = 0.1  # of the newest draft in the acceptance
_DOUBT = 4  # bytes: a guess found by so many is believed to be right half of the time, until it is seen
_KEPT = 4096  # shares remembered


class Guess(NamedTuple):
    """Tokens that may come next, because `alike` bytes before them are the same as where they came before."""

    tokens: list[int]
    alike: int


class Lookup:
    """What came next when the text last stood like this.

    Tokens are found by the bytes before them: `John` inside quotes and ` John` inside a sentence are two tokens, yet
    what follows them is the same.
    """

    def __init__(self, piece: Callable[[int], bytes], tokens: Iterable[int]) -> None:
        self._piece = piece
        self._far = _FIRST
        self._tokens: list[int] = []
        self._text = bytearray()
        self._after: dict[bytes, int] = {}  # ending → where the token after it stands in `_tokens`
        self.extend(tokens)

    def __len__(self) -> int:
        """Tokens known."""
        return len(self._tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        """The text went on with `tokens`."""
        for token in tokens:
            self._after.update((ending, len(self._tokens)) for ending in self._endings())
            self._tokens.append(token)
            self._text += self._piece(token)

    def guess(self, most: int) -> Guess | None:
        """At most `most` tokens, at least one; `None` when the text never stood like this before."""
        if most < 1:
            return None
        for ending in self._endings():
            if (at := self._after.get(ending)) is not None:
                return Guess(self._tokens[at : at + min(most, self._far)], len(ending))
        return None

    def checked(self, drafted: int, accepted: int) -> None:
        """Of `drafted` tokens `accepted` were right: what goes well is guessed further the next time."""
        self._far = min(2 * drafted, LONGEST) if accepted == drafted else accepted + 1

    def _endings(self) -> list[bytes]:
        return [bytes(self._text[-size:]) for size in _ENDINGS if size <= len(self._text)]


class Acceptance:
    """How often guesses are right: a moving mean for each specialist and for how much was alike. One engine's.

    `step_cost`: what a step costs beyond its tokens, in tokens. For one thread only, the engine's.
    """

    def __init__(self, step_cost: float = STEP_COST) -> None:
        self._step_cost = step_cost
        self._shares: OrderedDict[tuple[str, int], float] = OrderedDict()

    def pays(self, specialist: str, alike: int, companions: int) -> bool:
        """Is such a guess worth its tokens in a step in which `companions` others take part?

        A wrong token costs the computation of one token. A right one saves its text a step, and what a step costs
        beyond its tokens is borne by all in it: step_cost / (companions + 1). If a share p is right, the gain is
        p × step_cost / (companions + 1) and the loss 1 - p; a draft pays where the gain is larger, that is
        p > 1 / (step_cost / (companions + 1) + 1).
        """
        share = self._shares.get((specialist, alike), _believed(alike))
        return share > 1 / (self._step_cost / (companions + 1) + 1)

    def record(self, specialist: str, alike: int, right: int, wrong: int) -> None:
        """`right` tokens of a guess came, and `wrong` did not; what a grammar forced is neither.

        Guesses that were not decoded teach too: what came is compared with them all the same.
        """
        if not right + wrong:
            return
        share = self._shares.pop((specialist, alike), _believed(alike))
        self._shares[specialist, alike] = share + _WEIGHT * (right / (right + wrong) - share)
        if len(self._shares) > _KEPT:
            self._shares.popitem(last=False)


def _believed(alike: int) -> float:
    return alike / (alike + _DOUBT)
