"""`swarm backtest`: what weighing tiers by price would have brought on recorded answers, beside simpler ways."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from protocols.answers import Signals
from protocols.control import Calibration
from swarm.backtest.bootstrap import Statistic, paired
from swarm.backtest.chart import png_chart, text_chart
from swarm.backtest.curve import Curve
from swarm.backtest.metrics import dollar_area
from swarm.backtest.replay import NotRecorded, Policy, Replay, Row, Unreadable, quality, usd
from swarm.dispatch import calibrate, quality_fit
from swarm.dispatch.choice import Value, choose
from swarm.dispatch.learnt import comparable
from swarm.dispatch.offers import Priced, weighed
from swarm.dispatch.quality import Labelled, Quality, Reading
from swarm.errors import SwarmError

WORTHS = 24  # worths of a right answer that are swept: each gives a point of the curve
RESAMPLES = 1000
FEWEST = 60  # queries: half of them teach


def backtest(path: Path, plot: Path | None, seed: int) -> None:
    """Print the curves and what they are worth. Raises `SwarmError`."""
    try:
        replay = Replay.read(path)
        if len(replay.queries) < FEWEST or len(replay.tiers) < 2:
            raise SwarmError(f"{path}: {FEWEST} queries and two tiers are needed at least; record more")
        queries = list(replay.queries)
        random.Random(seed).shuffle(queries)
        taught, judged = queries[::2], queries[1::2]
        _report(replay, taught, judged, plot)
    except OSError as e:
        raise SwarmError(f"{path}: cannot be read ({e.strerror})") from e
    except (Unreadable, NotRecorded, ModuleNotFoundError) as e:
        raise SwarmError(f"{path}: {e}") from e


def _report(replay: Replay, taught: Sequence[str], judged: Sequence[str], plot: Path | None) -> None:
    tiers = sorted(replay.tiers, key=lambda t: fmean(replay.answer(q, t).micro_usd for q in taught))
    each = {tier: replay.play(lambda asked, t=tier: None if asked else t, judged) for tier in tiers}  # type: ignore[misc]
    played = [replay.play(policy, judged) for policy in _policies(replay, tiers, taught)]
    costs = {"weighed": np.array([usd(p) for p in played]), "single tiers": np.array([usd(each[t]) for t in tiers])}
    rights = {
        "weighed": np.array([quality(p) for p in played]),
        "single tiers": np.array([quality(each[t]) for t in tiers]),
    }
    ends = [0, len(tiers) - 1]
    costs["coin"], rights["coin"] = costs["single tiers"][ends], rights["single tiers"][ends]
    oracle = [
        next((r for r in rows if r.correct >= 0.5), rows[0])
        for rows in ([replay.answer(q, t) for t in tiers] for q in judged)
    ]
    low, high = (float(costs["single tiers"][i].mean()) for i in ends)
    if not high > low:
        raise SwarmError(f"tiers {tiers[0]!r} and {tiers[-1]!r} cost the same; there is no price to weigh")
    curves = {name: _curve(costs[name], rights[name]) for name in costs}
    _table(tiers, costs, rights, curves, low, high, oracle)
    shown = {name: curve.hull() for name, curve in curves.items()}
    print(text_chart(shown, cost="dollars a query"))
    if plot is not None:
        png_chart(shown, plot, cost="dollars a query")


def _curve(cost: NDArray[np.float64], right: NDArray[np.float64], at: NDArray[np.int_] | None = None) -> Curve:
    chosen = slice(None) if at is None else at
    return Curve.through(cost[:, chosen].mean(axis=1), right[:, chosen].mean(axis=1))


def _table(
    tiers: Sequence[str], costs: Mapping[str, NDArray[np.float64]], rights: Mapping[str, NDArray[np.float64]],
    curves: Mapping[str, Curve], low: float, high: float, oracle: Sequence[Row],
) -> None:  # fmt: skip
    console = Console(width=None if Console().is_terminal else 120)
    singles = Table(
        "tier", "right", "dollars a query", title=f"{costs['coin'].shape[1]:,} queries judged, as many taught"
    )
    for tier, cost, right in zip(tiers, costs["single tiers"], rights["single tiers"], strict=True):
        singles.add_row(tier, f"{right.mean():.1%}", f"{cost.mean():.6f}")
    right, cost = fmean(r.correct for r in oracle), fmean(r.micro_usd for r in oracle) / 1e6
    singles.add_row("oracle (the cheapest that is right)", f"{right:.1%}", f"{cost:.6f}")
    console.print(singles)
    best = float(rights["single tiers"].mean(axis=1).max())
    n = costs["coin"].shape[1]

    def area_of(name: str) -> Statistic:
        return lambda at: dollar_area(_curve(costs[name], rights[name], at), low, high)

    table = Table("way", "area", "weighed less this, 95%", "dollars at the best tier's quality")
    for name, curve in curves.items():
        better = "" if name == "weighed" else str(paired(area_of("weighed"), area_of(name), n, resamples=RESAMPLES))
        table.add_row(name, f"{dollar_area(curve, low, high):.4f}", better, f"{curve.hull().cost_of(best):.6f}")
    console.print(table)


# --- policies ---------------------------------------------------------------------------------------------------


def _policies(replay: Replay, tiers: Sequence[str], taught: Sequence[str]) -> list[Policy]:
    """One for each worth of a right answer, from hardly more than nothing to whatever it takes."""
    rows = {tier: [replay.answer(query, tier) for query in taught] for tier in tiers}
    maps = {t: calibrate.fit([_signals(r) for r in rows[t]], [r.correct >= 0.5 for r in rows[t]]) for t in tiers}
    labelled = [
        Labelled(
            {t: _reading(rows[t][i], maps[t]) for t in tiers}, {t: rows[t][i].correct >= 0.5 for t in tiers}
        )
        for i in range(len(taught))
    ]  # fmt: skip
    learnt = quality_fit.fit(tiers, labelled)
    prices = {t: Priced(t, fmean(r.micro_usd for r in rows[t]), fmean(r.ms for r in rows[t])) for t in tiers}
    dearest = max(prices[t].micro_usd for t in tiers) / 1e6 or 1e-6
    return [
        _policy(tiers, learnt, maps, prices, Value(usd=w)) for w in np.geomspace(dearest / 10, dearest * 1e4, WORTHS)
    ]


def _policy(
    tiers: Sequence[str], learnt: Quality, maps: Mapping[str, Calibration | None], prices: Mapping[str, Priced],
    value: Value,
) -> Policy:  # fmt: skip
    def next_tier(asked: tuple[Row, ...]) -> str | None:
        readings = {row.tier: _reading(row, maps[row.tier]) for row in asked}
        above = tiers[max((tiers.index(t) for t in readings), default=-1) + 1 :]
        now, offers = weighed(learnt, readings, [prices[t] for t in above], value)
        best = choose(now, offers, value).alternatives[0]
        return best.path[0] if best.path else None if asked else tiers[0]

    return next_tier


def _signals(row: Row) -> Signals:
    return Signals(p=row.confidence)


def _reading(row: Row, calibration: Calibration | None) -> Reading:
    return Reading(calibrate.confidence(_signals(row), calibration), comparable(row.output) if row.output else None)
