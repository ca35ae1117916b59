"""Which notes are worth recalling now: by what they share with what is asked, and by how new they are. Pure.

Relevance is Okapi BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009) over the notes of one
key; a note's worth is its relevance, as a share of the highest, plus a recency that decays with each newer note, after
the retrieval of Park et al. ("Generative Agents", UIST 2023), without an importance.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import log

from swarm.dispatch.memory.note import Note

DECAY = 0.9  # of recency, with each newer note
SATURATION, LENGTH = 1.2, 0.75  # BM25's k1 and b, at their usual values
_WORD = re.compile(r"\w+")


def chosen(notes: Sequence[Note], text: str, tokens: int) -> list[Note]:
    """Those of `notes` (the oldest first) to recall for `text`, within `tokens`, in their order.

    A summary comes before everything else, as it stands for what is not there any more.
    """
    alike = relevance([note.line for note in notes], text)
    worth = [alike[i] + DECAY ** (len(notes) - 1 - i) + (3.0 if note.summary else 0.0) for i, note in enumerate(notes)]
    taken: list[int] = []
    for i in sorted(range(len(notes)), key=lambda i: (-worth[i], -i)):
        if notes[i].tokens <= tokens:
            tokens -= notes[i].tokens
            taken.append(i)
    return [notes[i] for i in sorted(taken)]


def relevance(texts: Sequence[str], query: str) -> list[float]:
    """BM25 of each text for `query`, as a share of the highest; all 0 where they have no word in common."""
    words = [Counter(_words(text)) for text in texts]
    lengths = [sum(counts.values()) for counts in words]
    mean = sum(lengths) / len(lengths) if any(lengths) else 1.0
    scores = [0.0] * len(texts)
    for word in set(_words(query)):
        within = sum(word in counts for counts in words)
        rarity = log(1 + (len(texts) - within + 0.5) / (within + 0.5))
        for i, counts in enumerate(words):
            often = counts[word]
            scores[i] += (
                rarity * often * (SATURATION + 1) / (often + SATURATION * (1 - LENGTH + LENGTH * lengths[i] / mean))
            )
    highest = max(scores, default=0.0)
    return [score / highest for score in scores] if highest > 0 else scores


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
