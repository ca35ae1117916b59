"""Five Llamas, 1B to 405B: the dollar–quality curve of our choice beside single models, thresholds and a prompt router.

    python benchmarks/recorded/cascades.py [--data DIR] [--resamples 1000]

Every policy is fitted on one part of the rows and judged on another: on the source's own train and test rows where
there are both, and, as the train rows are few, again in five folds over all rows, each judged by what was fitted on the
other four (GSM8K has train rows only: five folds). Nothing is chosen on judged rows; ours has one knob, what a right
answer is worth. All expect prices from the length of the prompt. Area: mean quality between the mean dollars of the
cheapest and the dearest single model, of the settings as they came out, joined by straight lines; only the single
models get their best hull. Below its cheapest setting a policy counts with that one's quality. Intervals: paired
bootstrap over the judged rows, what was fitted is kept.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray
from peers.report import Report

from recorded import data
from recorded.data import Recorded
from recorded.embeddings import embedded
from swarm.backtest.bootstrap import RESAMPLES, Interval, interval, paired
from swarm.backtest.curve import Curve
from swarm.backtest.metrics import dollar_area
from swarm.dispatch import logistic, quality_fit
from swarm.dispatch.choice import Value, choose
from swarm.dispatch.offers import Priced, weighed
from swarm.dispatch.quality import Labelled, Quality, Reading

SEED = 7
FOLDS = 5
SETTINGS = 30  # of each policy
COMPONENTS = 64  # of the 384 that a prompt's embedding has
LEVELS = np.linspace(0.05, 0.95, 19)  # quantiles of confidence that thresholds are taken from
CHAINS = {"8B → 405B at a threshold": (2, 4), "8B → 70B → 405B at two": (2, 3, 4)}

Floats = NDArray[np.float64]
Rows = NDArray[np.int_]


@dataclass(frozen=True)
class Played:
    """What a policy's settings came to: right and dollars, (settings, judged rows)."""

    right: Floats
    usd: Floats

    def curve(self, at: Rows) -> Curve:
        return Curve.through(self.usd[:, at].mean(axis=1), self.right[:, at].mean(axis=1))


Policy = Callable[[Recorded, Rows, Rows], Played]  # recorded, rows to fit on, rows to judge


# --- policies ---------------------------------------------------------------------------------------------------


def ours(recorded: Recorded, fitted: Rows, judged: Rows) -> Played:
    """The choice over fitted quality, for a right answer worth from less than the cheapest price up."""
    assert recorded.usd is not None
    quality = quality_fit.fit(recorded.models, [_labelled(recorded, int(i)) for i in fitted], SEED)
    prices = expected_usd(recorded, fitted)
    played = Played(np.zeros((SETTINGS, len(judged))), np.zeros((SETTINGS, len(judged))))
    for place, i in enumerate(judged):
        row = _labelled(recorded, int(i))
        for setting, usd in enumerate(_worths(recorded, fitted)):
            answer, asked = _play(quality, row, prices[i], Value(usd))
            played.right[setting, place] = row.right[answer]
            played.usd[setting, place] = sum(recorded.usd[i, recorded.column(tier)] for tier in asked)
    return played


def _play(quality: Quality, row: Labelled, prices: Floats, value: Value) -> tuple[str, list[str]]:
    """One task to its end: whose answer is kept, and who was asked. There must be an answer."""
    asked: dict[str, Reading] = {}
    last = -1
    while True:
        priced = [Priced(t, 1e6 * float(prices[i])) for i, t in enumerate(quality.tiers) if i > last]
        now, offers = weighed(quality, asked, priced, value)
        choice = choose(now, offers, value)
        if now is not None and choice.action == "accept":
            return now.tier, list(asked)
        tier = choice.tier or quality.tiers[0]
        asked[tier] = row.readings[tier]
        last = quality.tiers.index(tier)


def thresholds(chain: tuple[int, ...]) -> Policy:
    """Answers are kept from a log-probability on. Of all threshold tuples those on the hull of the fitted rows."""

    def policy(recorded: Recorded, fitted: Rows, judged: Rows) -> Played:
        assert recorded.conf is not None
        levels = [np.r_[-np.inf, np.quantile(recorded.conf[fitted, m], LEVELS), np.inf] for m in chain[:-1]]
        tried = list(itertools.product(*levels))
        on_train = [_climbed(recorded, fitted, chain, cuts) for cuts in tried]
        points = Curve.through([usd.mean() for _, usd in on_train], [right.mean() for right, _ in on_train]).hull()
        found = {(round(float(u.mean()), 12), round(float(r.mean()), 12)): c
                 for (r, u), c in zip(on_train, tried, strict=True)}  # fmt: skip
        best = [found[round(float(c), 12), round(float(q), 12)]
                for c, q in zip(points.cost, points.quality, strict=True)]  # fmt: skip
        chosen = [best[n] for n in np.linspace(0, len(best) - 1, SETTINGS).round().astype(int)]
        played = [_climbed(recorded, judged, chain, cuts) for cuts in chosen]
        return Played(np.array([r for r, _ in played]), np.array([u for _, u in played]))

    return policy


def _climbed(recorded: Recorded, at: Rows, chain: tuple[int, ...], cuts: tuple[float, ...]) -> tuple[Floats, Floats]:
    assert recorded.conf is not None and recorded.usd is not None
    stop = np.full(len(at), len(chain) - 1)
    for place in range(len(chain) - 2, -1, -1):
        stop[recorded.conf[at, chain[place]] >= cuts[place]] = place
    lines = np.arange(len(at))
    right = recorded.correct[at][:, chain][lines, stop].astype(np.float64)
    return right, recorded.usd[at][:, chain].cumsum(axis=1)[lines, stop]


def router(recorded: Recorded, fitted: Rows, judged: Rows) -> Played:
    """One model by the prompt alone, the one of the highest worth · P(right) − expected price."""
    assert recorded.usd is not None
    expected, lines = _by_prompt(recorded, fitted, judged), np.arange(len(judged))
    prices = expected_usd(recorded, fitted)[judged]
    picks = [np.argmax(usd * expected - prices, axis=1) for usd in _worths(recorded, fitted)]
    right, usd = recorded.correct[judged].astype(np.float64), recorded.usd[judged]
    return Played(np.array([right[lines, p] for p in picks]), np.array([usd[lines, p] for p in picks]))


def _by_prompt(recorded: Recorded, fitted: Rows, at: Rows) -> Floats:
    """P(right) of each model by a logistic map of the prompt's embedding, of which the fitted rows' first principal
    components are taken, (len(at), models)."""
    x = embedded(recorded.prompts).astype(np.float64)
    x = x - x[fitted].mean(axis=0)
    x = x @ np.linalg.svd(x[fitted], full_matrices=False)[2][:COMPONENTS].T
    expected = np.zeros((len(at), len(recorded.models)))
    for m in range(len(recorded.models)):
        y = recorded.correct[fitted, m].astype(np.float64)
        strength = logistic.best_strength(x[fitted], y, seed=SEED)
        expected[:, m] = logistic.predict(logistic.fit(x[fitted], y, strength), x[at])
    return expected


def singles(recorded: Recorded, fitted: Rows, judged: Rows) -> Played:
    """Each model alone."""
    assert recorded.usd is not None
    return Played(recorded.correct[judged].T.astype(np.float64), recorded.usd[judged].T)


# --- the comparison ---------------------------------------------------------------------------------------------


def cascades(folder: Path, report: Report, resamples: int = RESAMPLES) -> None:
    """A table of areas and differences for each split, and one of our curve."""
    by_split: dict[str, list[list[str]]] = {"the source's train and test rows": [], "five folds": []}
    curves: list[list[str]] = []
    for benchmark in data.CASCADE_BENCHMARKS:
        recorded = data.cascade(folder, benchmark, "llama")
        source = _source_test(folder, benchmark)
        for title, table in by_split.items():
            if title != "five folds" and not source.any():
                continue
            folds = [~source, source] if title != "five folds" else None
            played, n = _played(recorded, folds)
            table.extend(_compared(benchmark, played, n, resamples))
            curves.append([benchmark, title, _told(played["ours"].curve(np.arange(n)))])
    columns = ["benchmark", "policy", "area", "ours − it"]
    notes = ["Area with 95% interval; its difference by paired bootstrap; * excludes 0."]
    for title, rows in by_split.items():
        report.table(f"Llama 1B to 405B, {title}", columns, rows, notes)
    report.table("Ours: dollars per million queries → share right", ["benchmark", "split", "curve"], curves)


def _played(recorded: Recorded, halves: list[NDArray[np.bool_]] | None) -> tuple[dict[str, Played], int]:
    """Every policy on the judged rows: of the second half, or of each fold in turn."""
    policies: dict[str, Policy] = {"ours": ours, "single models, their hull": singles}
    policies |= {name: thresholds(chain) for name, chain in CHAINS.items()} | {"prompt router": router}
    if halves is not None:
        fitted, judged = map(np.flatnonzero, halves)
        return {name: policy(recorded, fitted, judged) for name, policy in policies.items()}, len(judged)
    fold = logistic.folds(len(recorded), FOLDS, SEED)
    found = {}
    for name, policy in policies.items():
        parts = [policy(recorded, np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)]
        found[name] = Played(np.hstack([p.right for p in parts]), np.hstack([p.usd for p in parts]))
    return found, len(recorded)


def _compared(benchmark: str, played: dict[str, Played], n: int, resamples: int) -> list[list[str]]:
    alone = played["single models, their hull"].usd.mean(axis=1)
    low, high = float(alone.min()), float(alone.max())

    def area(name: str) -> Callable[[Rows], float]:
        return lambda at: dollar_area(played[name].curve(at), low, high, hull=name.startswith("single"))

    rows = [[benchmark, "ours", str(interval(area("ours"), n, resamples=resamples)), ""]]
    for name in played:
        if name != "ours":
            value = interval(area(name), n, resamples=resamples)
            rows.append(["", name, str(value), _difference(paired(area("ours"), area(name), n, resamples=resamples))])
    return rows


def _difference(found: Interval) -> str:
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]{' *' if found.excludes_zero else ''}"


def _told(curve: Curve) -> str:
    points = dict.fromkeys(f"{1e6 * c:.0f} → {q:.3f}" for c, q in zip(curve.cost, curve.quality, strict=True))
    return ", ".join(list(points)[:: max(1, len(points) // 8)])


# --- what is known beforehand -------------------------------------------------------------------------------------


def expected_usd(recorded: Recorded, fitted: Rows) -> Floats:
    """Dollars by a straight line over the prompt's length, (n, models), fitted on these rows."""
    assert recorded.usd is not None
    length = np.array([[1.0, len(prompt)] for prompt in recorded.prompts])
    line = np.linalg.lstsq(length[fitted], recorded.usd[fitted], rcond=None)[0]
    return np.asarray(np.maximum(length @ line, recorded.usd[fitted].min(axis=0)))


def _worths(recorded: Recorded, fitted: Rows) -> Floats:
    """What a right answer is worth, dollars, (settings,): from too little for any escalation to where all pay."""
    assert recorded.usd is not None
    mean = recorded.usd[fitted].mean(axis=0)
    return np.geomspace(mean.min(), 100.0 * mean.max(), SETTINGS)


def _labelled(recorded: Recorded, i: int) -> Labelled:
    assert recorded.conf is not None
    readings = {
        model: Reading(
            float(np.exp(recorded.conf[i, m])), (recorded.answers[i][m] or None) if recorded.answers else None
        )
        for m, model in enumerate(recorded.models)
    }
    right = {model: bool(recorded.correct[i, m]) for m, model in enumerate(recorded.models)}
    return Labelled(readings, right)


def _source_test(folder: Path, benchmark: str) -> NDArray[np.bool_]:
    """Which rows are the source's test rows, (n,)."""
    with gzip.open(folder / f"cascade_{benchmark}_llama.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return np.array([row["split"] == "test" for row in csv.DictReader(file)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--resamples", type=int, default=RESAMPLES)
    args = parser.parse_args()
    report = Report()
    try:
        cascades(data.folder(args.data), report, args.resamples)
    except data.DataMissing as e:
        sys.exit(str(e))
    report.close()


if __name__ == "__main__":
    main()
