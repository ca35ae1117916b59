"""Seven small models answer a question with up to ten options, then perhaps the strongest: MMLU-Pro.

A learned vote weighs who says what at what length. Whether the kept answer gains by being sent up is predicted from
the vote, the pattern of answers and the question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peers.report import Report

from recorded.data import SMALL_MMLUPRO, Recorded, mmlupro
from recorded.embeddings import embedded
from recorded.scoring import COLUMNS, Floats, Places, Routers, split, unseen
from swarm.backtest.metrics import apgr
from swarm.dispatch.gain import Member, Queries, fit_gain
from swarm.dispatch.traits import question_traits

LETTERS = "ABCDEFGHIJ"
STRONGEST = "gemini-1.5-pro-002"
INNER = 3  # parts in which the vote is cross-fitted on the rows that are learnt from
WORDED = "options' wording used"


@dataclass(frozen=True)
class Ballots:
    """n questions, 10 options, k small models."""

    data: Recorded
    said: NDArray[np.bool_]  # (n, 10, k)
    written: Floats  # (n, k): log of the characters written
    offered: NDArray[np.bool_]  # (n, 10): the options that there are
    right: NDArray[np.bool_]  # (n, 10)
    asked: Floats  # traits of the question
    worded: (
        Floats  # (n, 10, traits): how long each option is beside the others, and whether its number is in the middle
    )

    @classmethod
    def of(cls, data: Recorded) -> Ballots:
        assert data.answers is not None and data.tok_out is not None
        k = len([m for m in data.models if m in SMALL_MMLUPRO])
        answers = np.array([row[:k] for row in data.answers])
        said = np.stack([answers == letter for letter in LETTERS], axis=1)
        offered = np.arange(len(LETTERS)) < np.array([[len(o)] for o in data.options])
        right = np.array([[letter == g for letter in LETTERS] for g in data.gold])
        written = np.log1p(4 * data.tok_out[:, :k])
        return cls(data, said, written, offered, right, question_traits(data.prompts, data.options), _worded(data))


def small_mmlupro(folder: Path, report: Report, seeds: int = 5) -> None:
    data = mmlupro(folder)
    routers_of_seven(Ballots.of(data), embedded(data.prompts), report, seeds)


def routers_of_seven(ballots: Ballots, vectors: NDArray[np.float32], report: Report, seeds: int) -> None:
    """On categories that were trained on, then on categories that were not."""
    seen, new = Routers(), Routers()
    n = len(ballots.data)
    for seed in range(seeds):
        learn, test = split(n, seed)
        _add(seen, ballots, test, _routed(ballots, vectors, learn, test, by_category=False))
        found: dict[str, Floats] = {}
        for learn, test in unseen(ballots.data.groups, seed):
            for name, values in _routed(ballots, vectors, learn, test, by_category=True).items():
                found.setdefault(name, np.zeros((2, n)))[:, test] = values
        _add(new, ballots, np.arange(n), found)
    for routers, where in ((seen, "categories trained on"), (new, "categories never trained on")):
        report.table(f"MMLU-Pro, seven small models, then the strongest, {where}", COLUMNS, routers.rows(), _notes())


def _notes() -> list[str]:
    return [
        f"Strong: {STRONGEST}. Kept: the small models' vote, or the best small model's own answer where it says so.",
        "'from the best small': gains are measured from the best single small model, as those of 'agreement alone' "
        "are; a vote that is better starts above 0. 'from the vote': from the answer that is kept.",
        "What to look at was decided on 70% of the rows (the first split); later tests overlap with those.",
        "'gain': the predicted gain, P(wrong) of the vote or their sum, whichever ranks held-out learnt rows best.",
        f"'{WORDED}': the vote also sees how long each option is beside the others. In MMLU-Pro the wrong options were "
        "written by a model, and the right one can be told from them by such marks; expect less of it elsewhere.",
    ]


def _add(routers: Routers, ballots: Ballots, test: Places, found: Mapping[str, Floats]) -> None:
    """found: name -> (2, tested), as `_routed` gives it."""
    strong = ballots.data.correct[test, ballots.data.column(STRONGEST)].astype(np.float64)
    best = found["best small"][1]
    routers.add("agreement alone, best small's answer kept", found["best small"][0], best, strong)
    for name, (scores, kept) in found.items():
        if name != "best small":
            routers.add(f"{name}, from the best small", scores, kept, strong, anchor=best)
            routers.add(f"{name}, from the vote", scores, kept, strong)


def _routed(
    ballots: Ballots, vectors: NDArray[np.float32], learn: Places, test: Places, *, by_category: bool
) -> dict[str, Floats]:
    """Name -> (2, tested): scores, and whether the answer that is kept is right."""
    strong = ballots.data.correct[:, ballots.data.column(STRONGEST)].astype(np.float64)
    k = ballots.written.shape[1]
    right = ballots.data.correct[:, :k].astype(np.float64)
    best = int(np.argmax(right[learn].mean(axis=0)))
    agreeing = (ballots.said & ballots.said[:, :, [best]]).sum(axis=(1, 2))
    power = _power(right[learn].mean(axis=0))
    weighted = (ballots.said * power).sum(axis=2)
    found = {
        "best small": np.stack([-agreeing[test].astype(np.float64), right[test, best]]),
        "agreement, weighted vote": np.stack([-weighted[test].max(axis=1), _is_right(ballots, weighted)[test]]),
    }
    categories = [ballots.data.groups[i] for i in learn]
    for name, worded in (("gain, learned vote", False), (f"gain, learned vote, {WORDED}", True)):
        shares = np.zeros(weighted.shape)
        shares[learn], shares[test] = _cross_fitted(ballots, power, learn, test, worded)
        kept = _is_right(ballots, shares)
        queries = Queries(np.concatenate([_pattern(ballots, shares, weighted), ballots.asked], axis=1), vectors)
        groups = categories if by_category else None
        members: tuple[Member, ...] = ("plain", "linear") if by_category else ("plain", "linear", "boosted")
        model = fit_gain(queries.rows(learn), kept[learn], strong[learn], groups=groups, members=members)
        held, new = model.held_out.gain, model.expected(queries.rows(test)).gain
        wrong = 1 - shares.max(axis=1)
        choices = {0.0: held, 0.5: held + wrong[learn], 1.0: wrong[learn]}  # the strong side may not carry over
        best_mix = max(choices, key=lambda mix: apgr(choices[mix], kept[learn], strong[learn]))
        found[name] = np.stack([{0.0: new, 0.5: new + wrong[test], 1.0: wrong[test]}[best_mix], kept[test]])
    return found


def _power(accuracy: Floats) -> Floats:
    """Weights of a vote among ten options: log-odds of being right, above a guess."""
    return np.asarray(np.maximum(0.05, np.log(9 * accuracy / (1 - accuracy))), np.float64)


def _is_right(ballots: Ballots, shares: Floats) -> Floats:
    return np.asarray(ballots.right[np.arange(len(shares)), shares.argmax(axis=1)], np.float64)


def _cross_fitted(ballots: Ballots, power: Floats, learn: Places, test: Places, worded: bool) -> tuple[Floats, Floats]:
    """P(right) of each option, for the learnt rows and for the tested ones, by voters that have not seen the row."""
    x = _candidates(ballots, power, worded)
    part = np.random.default_rng(0).permutation(len(learn)) % INNER
    inner = np.zeros((len(learn), len(LETTERS)))
    for k in range(INNER):
        inner[part == k] = _shares(_voter(ballots, x, learn[part != k]), ballots, x, learn[part == k])
    return inner, _shares(_voter(ballots, x, learn), ballots, x, test)


def _voter(ballots: Ballots, x: Floats, rows: Places) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    there = ballots.offered[rows]
    voter = HistGradientBoostingClassifier(
        max_iter=120, learning_rate=0.06, max_leaf_nodes=8, min_samples_leaf=60, l2_regularization=5.0, random_state=0
    )
    return voter.fit(x[rows][there], ballots.right[rows][there])


def _shares(voter: Any, ballots: Ballots, x: Floats, rows: Places) -> Floats:
    there = ballots.offered[rows]
    shares = np.zeros(there.shape)
    shares[there] = voter.predict_proba(x[rows][there])[:, 1]
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float64)


def _candidates(ballots: Ballots, power: Floats, worded: bool) -> Floats:
    """(n, 10, traits) of each option: who says it, how long they wrote, and how strong its rivals are."""
    said = ballots.said.astype(np.float64)
    n, m, _ = said.shape
    length = ballots.written - ballots.written.mean(axis=0)
    count, weight = said.sum(axis=2), (said * power).sum(axis=2)
    others = ~np.eye(m, dtype=np.bool_)[None]
    rivals = [np.where(others, v[:, None, :], -1.0).max(axis=2) for v in (count, weight)]
    silent = (len(power) - count.sum(axis=1))[:, None]
    of_all = np.concatenate([silent, ballots.offered.sum(axis=1)[:, None], ballots.asked[:, :8]], axis=1)
    parts = [
        said,
        said * length[:, None, :],
        np.stack([count, weight, *rivals, (said * ballots.written[:, None, :]).sum(axis=2) / np.maximum(1, count)], 2),
        np.broadcast_to(of_all[:, None, :], (n, m, of_all.shape[1])),
    ]
    return np.concatenate([*parts, ballots.worded] if worded else parts, axis=2)


def _pattern(ballots: Ballots, shares: Floats, weighted: Floats) -> Floats:
    """Of the whole ballot: how sure the vote is, who stands behind it, who said nothing, how long they wrote."""
    kept = shares.argmax(axis=1)
    backing = ballots.said[np.arange(len(kept)), kept].astype(np.float64)
    silent = ~ballots.said.any(axis=1)
    counts = -np.sort(-ballots.said.sum(axis=2).astype(np.float64), axis=1)
    by_weight, sure = -np.sort(-weighted, axis=1), -np.sort(-shares, axis=1)
    top = np.clip(sure[:, 0], 1e-3, 1 - 1e-3)
    columns = [
        np.log(top / (1 - top)),
        *sure[:, :3].T,
        -(shares * np.log(np.maximum(1e-9, shares))).sum(axis=1),
        *counts[:, :4].T,
        *by_weight[:, :3].T,
        by_weight[:, 0] / np.maximum(1e-9, by_weight.sum(axis=1)),
        (counts > 0).sum(axis=1),
        *backing.T,
        *np.asarray(silent).T,
        silent.sum(axis=1),
        *ballots.written.T,
        ballots.written.mean(axis=1),
        ballots.written.std(axis=1),
        (ballots.written * backing).sum(axis=1) / np.maximum(1, backing.sum(axis=1)),
        (ballots.written * (1 - backing)).sum(axis=1) / np.maximum(1, (1 - backing).sum(axis=1)),
    ]
    return np.column_stack([np.asarray(c, np.float64) for c in columns])


def _worded(data: Recorded) -> Floats:
    found = np.zeros((len(data), len(LETTERS), 3))
    for i, options in enumerate(data.options):
        lengths = np.log1p([len(o) for o in options])
        order = np.argsort(np.argsort(lengths)) / max(1, len(options) - 1)
        found[i, : len(options)] = np.column_stack([lengths, lengths - lengths.mean(), order])
    return found
