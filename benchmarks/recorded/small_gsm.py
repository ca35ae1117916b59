"""Three small models of different families answer a sum; who agrees with whom says whether the strongest is needed."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from peers.report import Report

from recorded.data import Recorded, zeroeval_gsm
from recorded.scoring import COLUMNS, Floats, Places, Routers, split
from swarm.dispatch.gain import Queries, fit_gain
from swarm.dispatch.traits import question_traits
from swarm.dispatch.working import last_number, numbers, sums

FAMILIES = {  # up to 9B
    "gemma-2-2b-it": "gemma",
    "gemma-2-9b-it": "gemma",
    "Phi-3.5-mini-instruct": "phi",
    "Meta-Llama-3-8B-Instruct": "llama",
    "Meta-Llama-3.1-8B-Instruct": "llama",
    "Qwen2-7B-Instruct": "qwen",
    "Yi-1.5-9B-Chat": "yi",
}


def small_gsm(folder: Path, report: Report, seeds: int = 5) -> None:
    data = zeroeval_gsm(folder)
    routers_of_three(data, question_traits(data.prompts), report, seeds)


def routers_of_three(data: Recorded, asked: Floats, report: Report, seeds: int) -> None:
    answers = np.array([[_read(a) for a in row] for row in data.answers or ()])
    strong = len(data.models) - 1
    checked = _checked(data)
    routers, chosen = Routers(), []
    for seed in range(seeds):
        learn, test = split(len(data), seed)
        trio = _trio(data, answers, learn)
        vote = _vote(answers[:, trio])
        weak = data.correct[np.arange(len(data)), np.array(trio)[vote]].astype(np.float64)
        best = data.correct[:, strong].astype(np.float64)
        texts = [checked[data.models[k]] for k in trio if data.models[k] in checked]
        queries = Queries(np.concatenate([_pattern(data, answers, trio, vote), asked, *texts], axis=1))
        model = fit_gain(queries.rows(learn), weak[learn], best[learn])
        routers.add("gain", model.expected(queries.rows(test)).gain, weak[test], best[test])
        routers.add("agreement alone", -_agreeing(answers[:, trio], vote)[test], weak[test], best[test])
        chosen.append(" + ".join(data.models[k] for k in trio))
    report.table(
        "GSM8K, three small models, then the strongest",
        COLUMNS,
        [*routers.with_bounds().rows(), ["agreement alone (known before)", "0.901", "", "12.2%", *[""] * 4]],
        [
            f"Weak: what two of the three say, else the best one's answer; strong: {data.models[strong]}.",
            "What to look at was decided on the 70% of the first split; later tests overlap with it.",
            f"The three (different families, up to 9B) are those whose vote is right most often on the rows that are "
            f"learnt from: {'; '.join(sorted(set(chosen)))}.",
        ],
    )


def _read(answer: str) -> float:
    value = last_number(answer)
    return np.nan if value is None else value


def _trio(data: Recorded, answers: Floats, learn: Places) -> list[int]:
    """Columns of the three, best first; only the rows that are learnt from count."""
    right = data.correct[learn].mean(axis=0)
    known = [m for m in FAMILIES if m in data.models]
    best, found = -1.0, []
    for names in combinations(known, 3):
        if len({FAMILIES[m] for m in names}) < 3:
            continue
        trio = sorted((data.column(m) for m in names), key=lambda k: -right[k])
        vote = np.array(trio)[_vote(answers[np.ix_(learn, np.array(trio))])]
        quality = float(data.correct[learn, vote].mean())
        if quality > best:
            best, found = quality, trio
    return found


def _vote(said: Floats) -> NDArray[np.int_]:
    """Whose answer of the three is kept: (n,), 0 or 1."""
    others = (said[:, 1] == said[:, 2]) & (said[:, 0] != said[:, 1])
    return np.asarray(others, np.int_)


def _agreeing(said: Floats, vote: NDArray[np.int_]) -> Floats:
    kept = said[np.arange(len(said)), vote]
    return np.asarray((said == kept[:, None]).sum(axis=1), np.float64)


def _pattern(data: Recorded, answers: Floats, trio: list[int], vote: NDArray[np.int_]) -> Floats:
    """Who agrees with whom, how long they wrote, how the kept answer relates to its rival and to the question."""
    said = answers[:, trio]
    kept = said[np.arange(len(said)), vote]
    rival = np.array(
        [next((v for v in row if np.isfinite(v) and v != k), np.nan) for row, k in zip(said, kept, strict=True)]
    )
    agree = [said[:, i] == said[:, j] for i, j in ((0, 1), (0, 2), (1, 2))]
    all_three, none = agree[0] & agree[1], ~(agree[0] | agree[1] | agree[2])
    assert data.tok_out is not None
    written = np.log1p(4 * data.tok_out[:, trio])
    asked = [set(numbers(p)) for p in data.prompts]
    value, other = np.nan_to_num(kept), np.nan_to_num(rival, nan=0.0)
    ratio = np.maximum(value, other) / np.maximum(1e-9, np.minimum(value, other))
    two = np.isfinite(rival) & np.isfinite(kept)
    columns = [
        *agree,
        all_three,
        none,
        *(a & ~all_three for a in agree),
        np.isnan(said).sum(axis=1),
        value != np.round(value),
        value % 10 == 0,
        np.log1p(value),
        np.log1p(value) * ~all_three,
        [v in seen for v, seen in zip(kept, asked, strict=True)],
        *written.T,
        np.ptp(written, axis=1),
        *(written * all_three[:, None]).T,
        two & (ratio == np.round(ratio)),
        two & np.array([r in seen for r, seen in zip(ratio, asked, strict=True)]),
        two & np.array([abs(a - b) in seen for a, b, seen in zip(value, other, asked, strict=True)]),
        two & np.array([b in seen for b, seen in zip(other, asked, strict=True)]),
        two & (value > other),
        two & (abs(value - other) <= 1),
        two & (other != np.round(other)),
        np.where(two, np.minimum(8.0, np.log(np.maximum(1.0, ratio))), 0.0),
    ]
    return np.column_stack([np.asarray(c, np.float64) for c in columns])


def _checked(data: Recorded) -> dict[str, Floats]:
    """What the arithmetic of each small model's text is worth, where the texts were recorded."""
    found = {}
    for model in FAMILIES:
        if model in data.texts:
            found[model] = np.array([_sum_traits(text) for text in data.texts[model]], np.float64)
    return found


def _sum_traits(text: str) -> list[float]:
    said = sums(text)
    wrong = len(said.right) - sum(said.right)
    broken = sum(v != int(v) for v in said.results)
    doubt = len(re.findall(r"however|assum|not |cannot", text.lower()))
    return [min(wrong, 3), float(np.log1p(len(said.right))), min(broken, 5), doubt]
