"""What a tool requires of its inputs, seen to before it is called: a call that must not be made is not made."""

from __future__ import annotations

from protocols.answers import Answer, Ask, Failed
from protocols.packs import Pack
from swarm.config.expressions import Unknown, expression
from swarm.specialists.base import Answerer, Rehearsed


class Guarded:
    """Hands on what meets all of the pack's `requires`, and declines the rest, naming the first that does not hold."""

    def __init__(self, pack: Pack, inner: Answerer) -> None:
        self._pack = pack
        self._inner = inner
        self._rules = [expression(rule) for rule in pack.requires]

    async def answer(self, ask: Ask) -> Answer | Failed:
        for rule in self._rules:
            try:
                value = rule.value(ask.input)
                why = None if value is True else "it does not hold"
            except Unknown as e:
                why = str(e)
            if why is not None:
                detail = f"pack {self._pack.name!r} requires {rule.text!r}: {why}; the tool was not called"
                return Failed(id=ask.id, reason="declined", detail=detail)
        return await self._inner.answer(ask)

    async def rehearse(self) -> list[Rehearsed]:
        return await self._inner.rehearse()


def guarded(pack: Pack, inner: Answerer) -> Answerer:
    """`inner` behind what the pack requires, if it requires anything."""
    return Guarded(pack, inner) if pack.requires else inner
