"""RouteLLM's pair, Mixtral-8x7B and GPT-4: on MMLU with the prompt alone, on GSM8K with the weak answer's text seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from peers.report import Report

from recorded.data import Recorded, routellm_gsm8k, routellm_mmlu
from recorded.embeddings import embedded
from recorded.scoring import COLUMNS, Floats, Places, Routers, over_folds, split, unseen
from swarm.dispatch.gain import Queries, fit_gain
from swarm.dispatch.traits import question_traits
from swarm.dispatch.working import working_traits

PAIR = "Weak: Mixtral-8x7B-Instruct-v0.1; strong: gpt-4-1106-preview; quality: share of right answers."
LEARNT = (
    "30% is tested. What to look at in a text was decided on the other 70% of the first split; the tests of later "
    "splits overlap with those."
)
UNSEEN = "What to look at was decided on 70% of the rows, with subjects left out in the same way."


def mmlu(folder: Path, report: Report, seeds: int = 5) -> None:
    """The prompt alone: on subjects that were trained on, and on subjects that were not."""
    data = routellm_mmlu(folder)
    routers_of_mmlu(data, Queries(question_traits(data.prompts), embedded(data.prompts)), report, seeds)


def routers_of_mmlu(data: Recorded, queries: Queries, report: Report, seeds: int) -> None:
    length = np.array([float(len(p)) for p in data.prompts])
    seen, new = Routers(), Routers()
    for seed in range(seeds):
        learn, test = split(len(data), seed)
        _add(seen, data, test, {"gain": _learnt(data, queries, learn, test), "prompt length": length[test]})

        def scored(learn: Places, test: Places) -> Mapping[str, Floats]:
            subjects = [data.groups[i] for i in learn]
            return {"gain": _learnt(data, queries, learn, test, subjects), "prompt length": length[test]}

        whole = np.arange(len(data))
        _add(new, data, whole, over_folds(len(data), unseen(data.groups, seed), scored))
    for routers, where in ((seen, "subjects trained on"), (new, "subjects never trained on")):
        report.table(
            f"RouteLLM pair on MMLU, prompt only, {where}",
            COLUMNS,
            [*routers.with_bounds().rows(), ["RouteLLM (published, its own test rows)", "0.603", *[""] * 6]],
            [
                PAIR,
                LEARNT
                if routers is seen
                else "Five sets of subjects, each scored by what was learnt on the others. " + UNSEEN,
            ],
        )


def gsm8k(folder: Path, report: Report, seeds: int = 5) -> None:
    """The weak model has answered; its text is checked before anything is sent up."""
    data = routellm_gsm8k(folder)
    checked = working_traits(data.prompts, data.texts[data.models[0]])
    asked = question_traits(data.prompts)
    routers_of_gsm8k(data, checked, asked, embedded(data.prompts), report, seeds)


def routers_of_gsm8k(
    data: Recorded, checked: Floats, asked: Floats, vectors: NDArray[np.float32], report: Report, seeds: int
) -> None:
    seen, blind = Queries(np.concatenate([asked, checked], axis=1), vectors), Queries(asked, vectors)
    routers = Routers()
    for seed in range(seeds):
        learn, test = split(len(data), seed)
        scores = {
            "gain, weak text seen": _learnt(data, seen, learn, test),
            "gain, prompt only": _learnt(data, blind, learn, test),
            "weak text length": np.array([float(len(data.texts[data.models[0]][i])) for i in test]),
        }
        _add(routers, data, test, scores)
    published = [["RouteLLM, prompt only (published)", "0.622"], ["simple text features (known before)", "0.725"]]
    report.table(
        "RouteLLM pair on GSM8K",
        COLUMNS,
        [*routers.with_bounds().rows(), *([*row, *[""] * 6] for row in published)],
        [PAIR + " The grader takes the last whole number of a text, and a few flags are its accidents.", LEARNT],
    )


def _learnt(data: Recorded, queries: Queries, learn: Places, test: Places, groups: list[str] | None = None) -> Floats:
    model = fit_gain(queries.rows(learn), data.correct[learn, 0], data.correct[learn, 1], groups=groups)
    return model.expected(queries.rows(test)).gain


def _add(routers: Routers, data: Recorded, test: Places, scores: Mapping[str, Floats]) -> None:
    weak, strong = (data.correct[test, k].astype(np.float64) for k in (0, 1))
    for name, values in scores.items():
        routers.add(name, values, weak, strong)
