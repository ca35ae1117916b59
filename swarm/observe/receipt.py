"""What a run cost, tier by tier, and what the always-strong way would have cost. Pure: records in, a receipt out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec

from protocols.ids import RunId, TaskId
from protocols.money import Amount, Limit
from protocols.records import Attempt, Balance, RunRecord
from protocols.tasks import Result

ACCOMPLISHED = frozenset({"done", "degraded"})  # tasks that have an answer for every step


class TierLine(msgspec.Struct, frozen=True, kw_only=True):
    """One tier of one step. `unavailable` counts answers that would have gone there, had it been within reach."""

    step: str
    tier: str
    asked: int = 0
    accepted: int = 0
    recalled: int = 0  # known from before: nothing was asked
    escalated: int = 0
    overruled: int = 0  # an earlier answer was kept instead
    degraded: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0  # the budget did not allow it
    unavailable: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    ms: int = 0
    micro_usd: int = 0


class Dear(msgspec.Struct, frozen=True, kw_only=True):
    """One of the dearest tasks."""

    task: TaskId
    status: str
    cost: Amount
    ms: int


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """Every step answered by the remote model: estimated tokens at a known price (micro-dollars per million)."""

    model: str
    source: str
    input_per_mtok: int
    output_per_mtok: int
    calls: int
    tokens_in: int
    tokens_out: int
    micro_usd: int


class Missed(msgspec.Struct, frozen=True, kw_only=True):
    """What a tier that could not be asked would have got, at the baseline's price."""

    tier: str
    reason: str
    asks: int
    micro_usd: int | None


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What answers that were known from before had cost when they were first found. `answers`: how many there were."""

    answers: int
    micro_usd: int
    tokens: int


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The bill of a run. Money in micro-dollars, time in milliseconds."""

    run: RunId
    swarm: str
    finished: bool
    tasks: dict[str, int]
    tiers: tuple[TierLine, ...]
    hosts: dict[str, int]  # answers by host
    spent: Amount  # the overrun is part of it
    held: Amount
    limit: Limit
    overrun: Amount = Amount()  # what attempts used beyond what was held for them
    per_accomplished_micro_usd: float | None
    dearest: tuple[Dear, ...]
    missed: tuple[Missed, ...]
    baseline: Baseline | None
    saved: Saved | None = None
    ms: int | None  # from start to end; None while it runs

    def __str__(self) -> str:
        """The receipt as tables of plain text."""
        from swarm.observe.table import as_text

        return as_text(self)


def build(run: RunRecord, attempts: Iterable[Attempt], results: Iterable[Result], balance: Balance) -> Receipt:
    """The receipt of a run from what the store knows; right at any moment, also of a run that died."""
    attempts, results = list(attempts), list(results)
    statuses = Counter(r.status for r in results)
    charged = balance.settled + balance.overrun
    spent = Amount(micro_usd=charged.micro_usd, tokens=charged.tokens, ms=sum(a.ms for a in attempts))
    accomplished = sum(n for status, n in statuses.items() if status in ACCOMPLISHED)
    dearest = sorted(results, key=lambda r: (-r.cost.micro_usd, -r.cost.tokens, -r.ms))[:3]
    baseline = _baseline(run.about.get("baseline"), attempts)
    return Receipt(
        run=run.id,
        swarm=run.swarm,
        finished=run.finished is not None,
        tasks=dict(sorted(statuses.items())),
        tiers=tuple(_in_order(_lines(attempts), run.about.get("ladders", []))),
        hosts=dict(sorted(Counter(a.host for a in attempts if a.host).items())),
        spent=spent,
        held=balance.held,
        limit=balance.limit,
        overrun=balance.overrun,
        per_accomplished_micro_usd=spent.micro_usd / accomplished if accomplished else None,
        dearest=tuple(Dear(task=r.task, status=r.status, cost=r.cost, ms=r.ms) for r in dearest),
        missed=tuple(_missed(run.about.get("unavailable", {}), attempts, baseline)),
        baseline=baseline,
        saved=_saved(attempts),
        ms=round(1000 * (run.finished - run.started)) if run.finished is not None else None,
    )


def _saved(attempts: list[Attempt]) -> Saved | None:
    known = [a.saved for a in attempts if a.outcome == "recalled"]
    if not known:
        return None
    return Saved(answers=len(known), micro_usd=sum(s.micro_usd for s in known), tokens=sum(s.tokens for s in known))


def _lines(attempts: list[Attempt]) -> Iterable[TierLine]:
    groups: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        groups[attempt.step, attempt.tier].append(attempt)
    for (step, tier), group in groups.items():
        outcomes = Counter(a.outcome for a in group)
        never = outcomes["unavailable"] + outcomes["refused"] + outcomes["recalled"]
        yield TierLine(
            step=step,
            tier=tier,
            asked=len(group) - never,
            accepted=outcomes["accepted"],
            recalled=outcomes["recalled"],
            escalated=outcomes["escalated"],
            overruled=outcomes["overruled"],
            degraded=outcomes["degraded"],
            failed=outcomes["failed"],
            cancelled=outcomes["cancelled"],
            refused=outcomes["refused"],
            unavailable=outcomes["unavailable"],
            tokens_in=sum(a.tokens_in for a in group),
            tokens_out=sum(a.tokens_out for a in group),
            ms=sum(a.ms for a in group),
            micro_usd=sum(a.micro_usd for a in group),
        )


def _in_order(lines: Iterable[TierLine], ladders: list[Any]) -> list[TierLine]:
    """By the plan's order of steps, and each ladder's order of tiers."""
    place = {(step, tier): (i, j) for i, (step, tiers) in enumerate(ladders) for j, tier in enumerate(tiers)}
    last = (len(place), 0)
    return sorted(lines, key=lambda line: place.get((line.step, line.tier), last))


def _cost(baseline: dict[str, int], tokens_in: int, tokens_out: int) -> int:
    return -(-(tokens_in * baseline["input"] + tokens_out * baseline["output"]) // 1_000_000)


def _baseline(about: Any, attempts: list[Attempt]) -> Baseline | None:
    """Each step of each task counts once, whatever it was asked of."""
    if about is None:
        return None
    once: dict[tuple[TaskId, str], tuple[int, int]] = {}
    for a in attempts:
        if a.remote_tokens_in and a.outcome not in ("unavailable", "refused"):
            once[a.task, a.step] = (a.remote_tokens_in, a.remote_tokens_out)
    tokens_in, tokens_out = (sum(pair[i] for pair in once.values()) for i in (0, 1))
    return Baseline(
        model=about["model"],
        source=about["source"],
        input_per_mtok=about["input"],
        output_per_mtok=about["output"],
        calls=len(once),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        micro_usd=_cost(about, tokens_in, tokens_out),
    )


def _missed(unavailable: dict[str, str], attempts: list[Attempt], baseline: Baseline | None) -> Iterable[Missed]:
    for tier, reason in unavailable.items():
        asks = [a for a in attempts if a.tier == tier and a.outcome == "unavailable"]
        cost = None
        if baseline is not None:
            price = {"input": baseline.input_per_mtok, "output": baseline.output_per_mtok}
            cost = sum(_cost(price, a.remote_tokens_in, a.remote_tokens_out) for a in asks)
        yield Missed(tier=tier, reason=reason, asks=len(asks), micro_usd=cost)
