"""What a scripted host says: answers, failures, silence, refusals, its own death."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protocols.answers import Ask, Reason, Signals
from swarm.config.problems import did_you_mean
from swarm.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class Says:
    """An answer after `after_s` seconds. `confidence` is what the dispatcher sees; `signals` says more than that."""

    output: Mapping[str, Any]
    confidence: float = 1.0
    tokens: int = 0
    micro_usd: int = 0
    after_s: float = 0.0
    signals: Signals | None = None


@dataclass(frozen=True, slots=True)
class Fails:
    """An attempt without an output."""

    reason: Reason = "error"
    detail: str = "as scripted"
    retryable: bool = False
    unknown: bool = False
    tokens: int = 0
    micro_usd: int = 0
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Hangs:
    """No answer, until the ask is cancelled or its time is up."""


@dataclass(frozen=True, slots=True)
class Refuses:
    """The mailbox is full: the ask is not taken, and comes again in `retry_ms`."""

    retry_ms: int = 1


@dataclass(frozen=True, slots=True)
class Dies:
    """The host ends, with everything that it has not answered."""

    cause: str = "it died as scripted"


Reply = Says | Fails | Hangs | Refuses | Dies
Said = Mapping[str, Any] | Reply  # a mapping is the output of an answer that is sure
Table = Mapping[str, Said | Sequence[Said]]
Answers = Table | Callable[[Ask], Said | None]


class Script:
    """What hosts answer: a function of the ask, or a table by `step/tier` or `step`.

    A list in the table is said one after the other, one entry each time an ask is delivered, and the last for ever. A
    function that returns None, like a table without an entry, leaves the answer to plain code, if that is the tier.
    `asks` holds every ask that was delivered, in order.
    """

    def __init__(self, answers: Answers) -> None:
        self.asks: list[Ask] = []
        self._answers = answers
        self._said: Counter[str] = Counter()

    def asked(self, step: str, tier: str | None = None) -> list[Ask]:
        """The asks of one step, or of one tier of it."""
        return [ask for ask in self.asks if ask.step == step and tier in (None, ask.tier)]

    def next(self, ask: Ask) -> Reply | None:
        self.asks.append(ask)
        line = self._line(ask)
        return Says(line) if isinstance(line, Mapping) else line

    def check(self, plan: Plan) -> None:
        """Raises `ValueError` for an entry that no step or tier of the plan would ever ask for."""
        if callable(self._answers):
            return
        known = {name for s in plan.steps for name in (s.name, *(f"{s.name}/{tier.name}" for tier in s.ladder))}
        for name in self._answers:
            if name not in known:
                hint = did_you_mean(name, known)
                raise ValueError(f"the script answers {name!r}, which swarm {plan.name!r} never asks{hint}")

    def names(self, step: str, tier: str) -> bool:
        """Whether the table says what this tier of this step answers."""
        return not callable(self._answers) and (f"{step}/{tier}" in self._answers or step in self._answers)

    def _line(self, ask: Ask) -> Said | None:
        if callable(self._answers):
            return self._answers(ask)
        name = f"{ask.step}/{ask.tier}"
        name = name if name in self._answers else ask.step
        entry = self._answers.get(name)
        if entry is None or isinstance(entry, Mapping | Reply):
            return entry
        place = min(self._said[name], len(entry) - 1)
        self._said[name] += 1
        return entry[place]
