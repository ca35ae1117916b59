"""A budget that lasts: paced batches beside first come, first served, at the same dollars on recorded outcomes.

    python benchmarks/recorded/pacing.py [--data DIR]

A batch is of tasks that cheap models have answered; each can be sent to a dear one. Both policies expect the same gain
of each task, from a quality model fitted on other rows; the first takes whatever pays until the money is gone, the
second at the shadow price. Each seed splits the rows anew, into those to fit on, the prior's and the batch, and orders
the batch; hard first and hard last are by the share of all recorded models that fail. Nothing is chosen on the batches.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray
from peers.report import Report

from recorded import data
from recorded.data import Recorded
from swarm.dispatch import quality_fit
from swarm.dispatch.choice import Choice, Now, Offer, Value, choose
from swarm.dispatch.pacing import Offered, pacer
from swarm.dispatch.quality import Labelled, Reading

SEEDS = 20
BATCH = 500  # tasks at most
MOST = 300  # rows to fit on
BUDGETS = (0.1, 0.25, 0.5)  # of the price of sending everything
ORDERS = ("random", "hard first", "hard last")
WORTH = 20.0  # of a right answer, in prices of the dear model: a gain of 5 points pays
TINY = 1e-9
USD_PER_MTOK = 10.0  # output tokens, where no price was recorded

MMLUPRO = ("phi-3-mini-4k-instruct", "mathstral-7b", "llama-3.1-8b-instruct")
GSM = ("gemma-2-2b-it", "Phi-3.5-mini-instruct", "Meta-Llama-3.1-8B-Instruct")
CRUX = ("Qwen2.5-3B-Instruct", "Phi-3.5-mini-instruct", "Meta-Llama-3.1-8B-Instruct")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """One recorded task: expected quality of the kept answer and after the dear model, price; and what came true."""

    now: float
    after: float
    micro_usd: float
    weak_right: float
    strong_right: float
    spends: float  # micro-dollars
    hardness: float
    came: float  # the gain as judged with the dear answer in: P(the answer then kept is right) − P(the earlier one is)


@dataclass(frozen=True)
class Source:
    """A recorded set: which models have answered, which is the dear one."""

    recorded: Recorded
    cheap: tuple[str, ...]
    dear: str


@dataclass(frozen=True)
class Score:
    """Accuracy of first come, first served and of pacing, by seed, (seeds,)."""

    served: Floats
    paced: Floats


def sources(folder: Path) -> list[Source]:
    """Every recorded set with signals of its cheap answers: a confidence, or agreement of three."""
    llama = [data.cascade(folder, benchmark, "llama") for benchmark in data.CASCADE_BENCHMARKS]
    mixed = [data.cascade(folder, benchmark, "qwen_oai") for benchmark in data.CASCADE_BENCHMARKS]
    return [
        *(Source(recorded, ("llama3.1-8b",), "llama3.1-405b") for recorded in llama),
        *(Source(recorded, recorded.models[:1], "gpt-4o") for recorded in mixed),
        Source(data.mmlupro(folder), MMLUPRO, "gemini-1.5-pro-002"),
        Source(data.zeroeval_gsm(folder), GSM, "gpt-4o-2024-08-06"),
        Source(data.zeroeval_crux(folder), CRUX, "gpt-4o-2024-08-06"),
    ]


def tasks(source: Source, seed: int) -> tuple[list[Task], list[Offered], float]:
    """The batch part of the rows as tasks, the prior part as offers, and what a right answer is worth in dollars."""
    recorded = source.recorded
    order = np.random.default_rng(seed).permutation(len(recorded))
    fitted, prior, batch = np.split(order, [int(0.4 * len(order)), int(0.6 * len(order))])
    usd = _dear_usd(source)
    tiers = (*source.cheap, source.dear)
    quality = quality_fit.fit(tiers, [_labelled(source, int(i)) for i in fitted[:MOST]])
    expected = float(usd[fitted].mean()) * 1e6
    worth = WORTH * expected / 1e6

    def task(i: int) -> Task:
        row = _labelled(source, i)
        asked = {tier: row.readings[tier] for tier in source.cheap}
        estimates = quality.estimates(asked)
        kept = quality.kept(asked, estimates)
        assert kept is not None
        after = quality.estimates(row.readings)
        last = quality.kept(row.readings, after)
        assert last is not None
        right = [row.right[tier] for tier in tiers]
        fails = 1.0 - float(recorded.correct[i].mean())
        return Task(
            estimates[kept],
            estimates[-1],
            expected,
            right[kept],
            right[last],
            float(usd[i]) * 1e6,
            fails,
            after[last] - after[kept],
        )

    known = [task(int(i)) for i in prior[:BATCH]]
    return [task(int(i)) for i in batch[:BATCH]], [_offered(t, worth) for t in known], worth


def served(batch: Sequence[Task], budget: float, worth: float) -> float:
    """Share right when whatever pays is taken as long as there is money."""
    left, right = budget, 0.0
    for task in batch:
        taken = _choice(task, worth, 0.0, left).action == "escalate"
        left -= task.spends if taken else 0.0
        right += task.strong_right if taken else task.weak_right
    return right / len(batch)


def paced(batch: Sequence[Task], budget: float, worth: float, prior: Sequence[Offered]) -> float:
    """Share right at the shadow price."""
    left, right, pace = budget, 0.0, pacer(prior)
    for i, task in enumerate(batch):
        taken = _choice(task, worth, pace.price(left, len(batch) - i), left).action == "escalate"
        pace.observe(_offered(task, worth), worth * task.came if taken else None)
        left -= task.spends if taken else 0.0
        right += task.strong_right if taken else task.weak_right
    return right / len(batch)


def scores(source: Source) -> dict[str, list[Score]]:
    """By order, for each budget: both policies on the same batches. Each seed splits the rows anew."""
    found: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for seed in range(SEEDS):
        batch, prior, worth = tasks(source, seed)
        for order in ORDERS:
            if order != "random":
                batch.sort(key=lambda t: t.hardness, reverse=order == "hard first")  # ties stay random
            for budget in BUDGETS:
                money = budget * sum(task.spends for task in batch)
                pair = served(batch, money, worth), paced(batch, money, worth, prior)
                found.setdefault((order, budget), []).append(pair)
    return {order: [Score(*np.array(found[order, budget]).T) for budget in BUDGETS] for order in ORDERS}


def pacing(folder: Path, report: Report) -> None:
    """The table: accuracy at the same dollars, mean over the seeds and the budgets."""
    rows: list[list[str]] = []
    every: list[Floats] = []
    for source in sources(folder):
        for order, found in scores(source).items():
            every += [s.paced - s.served for s in found]
            rows.append([source.recorded.name, order, *_told(found)])
    columns = ["set", "order", "first come", "paced", f"points at {' / '.join(map(str, BUDGETS))}", "better, worse"]
    notes = [
        f"Budgets are shares of what sending every task would cost; {SEEDS} seeds each; better, worse: of {SEEDS * 3}.",
        f"Over all: {100 * float(np.mean(every)):+.2f} points; worse on the mean of the seeds in "
        f"{sum(float(gain.mean()) < -TINY for gain in every)} of {len(every)} cells.",
    ]
    report.table("Pacing beside first come, first served", columns, rows, notes)


def _told(found: Sequence[Score]) -> list[str]:
    """Means over the budgets, the gain at each, and in how many seeds it is one or a loss."""
    gains = np.concatenate([s.paced - s.served for s in found])
    return [
        f"{100 * float(np.mean([s.served for s in found])):.1f}",
        f"{100 * float(np.mean([s.paced for s in found])):.1f}",
        " / ".join(f"{100 * float((s.paced - s.served).mean()):+.1f}" for s in found),
        f"{int((gains > TINY).sum())}, {int((gains < -TINY).sum())}",
    ]


def _choice(task: Task, worth: float, price: float, left: float) -> Choice:
    offer = Offer("dear", "dearer", task.micro_usd, 0.0, task.after, hold_micro_usd=task.spends)
    return choose(Now("cheap", task.now), [offer], Value(worth, price), left)


def _offered(task: Task, worth: float) -> Offered:
    return Offered(worth * (task.after - task.now), task.micro_usd)


def _labelled(source: Source, i: int) -> Labelled:
    """Where no confidence was recorded all are 1/2, and agreement alone tells."""
    recorded, readings, right = source.recorded, {}, {}
    for tier in (*source.cheap, source.dear):
        at = recorded.column(tier)
        confidence = 0.5 if recorded.conf is None else float(np.exp(recorded.conf[i, at]))
        readings[tier] = Reading(confidence, recorded.answers[i][at] or None if recorded.answers else None)
        right[tier] = bool(recorded.correct[i, at])
    return Labelled(readings, right)


def _dear_usd(source: Source) -> Floats:
    """Dollars of the dear answer, (n,)."""
    recorded, at = source.recorded, source.recorded.column(source.dear)
    if recorded.usd is not None:
        return recorded.usd[:, at]
    assert recorded.tok_out is not None
    return np.asarray(np.maximum(1.0, recorded.tok_out[:, at]) * USD_PER_MTOK / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=None)
    report = Report()
    try:
        pacing(data.folder(parser.parse_args().data), report)
    except data.DataMissing as e:
        sys.exit(str(e))
    report.close()


if __name__ == "__main__":
    main()
