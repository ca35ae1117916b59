"""One answer out of several candidates: the one that most of the others agree with.

A wrong answer can be wrong in many ways and a right one in few, so that candidates drawn with some randomness meet at
the right one (self-consistency: Wang et al., ICLR 2023); where texts never meet word for word, the one that shares most
words with the others stands for them (Jain et al., "Lightweight Reranking for Language Model Generations", ACL 2024).
How many agree tells how sure the answer is (Yue et al., "Large Language Model Cascades with Mixture of Thought
Representations for Cost-efficient Reasoning", ICLR 2024).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from protocols.answers import Answer, Ask, Earlier, Failed, Usage
from swarm.engine.base import Generated, GenerateRequest, LanguageModel

Output = Mapping[str, Any]
Alike = Callable[[Output, Output], float]  # of two outputs, 0..1

TEMPERATURE = 0.7  # of candidates: enough for them to differ


async def written(model: LanguageModel, request: GenerateRequest, samples: int) -> tuple[Generated, ...]:
    """The greedy text, or so many candidates after the same prompt. Raises what the engine raises."""
    if samples <= 1:
        return (await model.generate(request),)
    return await model.candidates(msgspec.structs.replace(request, temperature=TEMPERATURE), samples)


def elected(replies: Sequence[Answer | Failed], alike: Alike, vote: Alike) -> Answer | Failed:
    """Of what came of each candidate the answer that is most alike to all; the first failure where none is an answer.

    One that fails its checks is taken only where all do. `p` is how sure the votes for it make it: by the rule of
    succession, as a few voices do not make anything certain; what is no answer votes for nothing. `margin` is how far
    that is from one half.
    """
    usage = _added([reply.usage for reply in replies])
    answers = [reply for reply in replies if isinstance(reply, Answer)]
    if not answers:
        return msgspec.structs.replace(replies[0], usage=usage)
    fit = [answer for answer in answers if not answer.signals.checks_failed] or answers
    best = max(fit, key=lambda one: sum(alike(one.output, other.output) for other in fit))  # the first of equals
    p = (sum(vote(answer.output, best.output) for answer in answers) + 1.0) / (len(replies) + 2.0)
    return msgspec.structs.replace(
        best, usage=usage, signals=msgspec.structs.replace(best.signals, p=p, margin=2.0 * p - 1.0)
    )


def before(ask: Ask) -> Earlier | None:
    """What another tier said last: to agree with oneself says nothing."""
    return next((earlier for earlier in reversed(ask.earlier) if earlier.tier != ask.tier), None)


def shared_words(one: Output, other: Output) -> float:
    """Of the texts of two outputs: the harmonic mean of the shares of their words that both have, 0..1."""
    a, b = (Counter(" ".join(str(v) for v in output.values()).casefold().split()) for output in (one, other))
    total = sum(a.values()) + sum(b.values())
    return 2.0 * sum((a & b).values()) / total if total else 1.0


def _added(each: Sequence[Usage]) -> Usage:
    return Usage(tokens_in=sum(u.tokens_in for u in each), tokens_out=sum(u.tokens_out for u in each))
