"""`swarm explain`: why each decision of a run was made, and what would have changed it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import msgspec

from protocols.money import dollars
from protocols.tasks import Result, Why
from swarm.errors import SwarmError
from swarm.state.store import open_store


def explain(store: str, run: str, task: str | None, as_json: bool) -> Iterator[str]:
    """Lines to print. Raises `SwarmError` for a run or a task that the store does not know."""
    results = asyncio.run(_results(store, run))
    chosen = [result for result in results if task is None or result.task == task]
    if not chosen:
        known = f"it has {len(results):,} finished tasks" if results else "no task of it has finished"
        raise SwarmError(f"task {task!r} is not in run {run!r}; {known}" if task else f"run {run!r}: {known}")
    for result in chosen:
        yield from [json.dumps(msgspec.to_builtins(result), ensure_ascii=False)] if as_json else _told(result)


async def _results(path: str, run: str) -> list[Result]:
    store = await open_store(path)
    try:
        if await store.run(run) is None:
            raise SwarmError(f"run {run!r} is not in the store; `swarm runs` lists those that are")
        return await store.results(run)
    finally:
        await store.close()


def _told(result: Result) -> Iterator[str]:
    sure = "" if result.confidence is None else f", confidence {result.confidence:.3f}"
    yield f"{result.task}: {result.status}{sure}, {dollars(result.cost.micro_usd)}, {result.ms:,} ms"
    if result.reason:
        yield f"  {result.reason}"
    for why in result.why:
        yield from (f"  {line}" for line in _decision(why))


def _decision(why: Why) -> Iterator[str]:
    tier = f" / {why.tier}" if why.tier else ""
    yield f"{why.step}{tier}: {why.decision}{': ' if why.reason else ''}{why.reason}"
    facts = list(_facts(why))
    if facts:
        yield "    " + ", ".join(facts)
    if why.signals:
        yield "    signals: " + ", ".join(f"{name} {_short(value)}" for name, value in why.signals.items())
    if why.rule:
        yield f"    threshold: {why.rule}"
    for each in why.weighed:
        path = " → ".join(each.path) or "what is there"
        yield (
            f"    {each.action:9} {path}: right {each.quality:.3f}, {dollars(round(each.micro_usd))}, "
            f"{each.ms:,.0f} ms, worth {each.net:+.6f} dollars"
        )
    if would := why.would_change or _otherwise(why):
        yield f"    {would}"


def _facts(why: Why) -> Iterator[str]:
    if why.confidence is not None:
        yield f"confidence {why.confidence:.3f}"
    if why.accept_at is not None:
        yield f"accepted from {why.accept_at:.3f}"
    if why.hold is not None:
        yield f"held {dollars(why.hold.micro_usd)} and {why.hold.tokens:,} tokens"
    if why.shadow_price is not None:
        yield f"shadow price {why.shadow_price:.3f}"
    for account, left in why.budget_left.items():
        yield f"{account} left: {left:,}" if left is not None else f"{account}: no limit"


def _otherwise(why: Why) -> str:
    """What would have changed a decision that a threshold alone made."""
    if why.confidence is None or why.weighed or not why.signals:
        return ""
    if why.accept_at is None:
        return "no confidence would have changed it: no answer of this tier is kept for this step"
    if why.decision == "accepted":
        return f"a threshold above {why.confidence:.3f} would have asked the next tier"
    return f"from confidence {why.accept_at:.3f} on it would have been accepted"


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} {_short(each)}" for key, each in list(value.items())[:3]) + "}"
    return str(value)
