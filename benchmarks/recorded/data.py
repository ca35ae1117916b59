"""Recorded rows as arrays: which models were right on which prompts, at what price, with what text.

The files are described in the README beside them. None is copied into this project: every benchmark takes the folder.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

CHARS_PER_TOKEN = 4  # where no tokens were recorded
ROUTELLM_USD_PER_MTOK = (0.24, 24.7)  # Mixtral, GPT-4; flat, as the RouteLLM paper counts them
ROUTELLM_MODELS = ("mixtral-8x7b-instruct-v0.1", "gpt-4-1106-preview")
SMALL_MMLUPRO = (
    "phi-3-mini-4k-instruct",
    "yi-6b-chat",
    "mistral-7b-instruct-v0.2",
    "qwen1.5-7b-chat",
    "gemma-7b",
    "mathstral-7b",
    "llama-3.1-8b-instruct",
)
CASCADES = ("llama", "qwen_oai")
CASCADE_BENCHMARKS = ("mmlu", "medmcqa", "gsm8k")

Row = dict[str, str]
T = TypeVar("T")


class DataMissing(Exception):
    """A file of recorded rows is not there. The message is the whole story."""


@dataclass(frozen=True)
class Recorded:
    """n prompts, m models. Arrays are (n, m); None where the source recorded nothing of the kind."""

    name: str
    prompts: tuple[str, ...]
    groups: tuple[str, ...]  # subject or category, "" if none
    models: tuple[str, ...]  # cheapest first; where no prices are known, the least often right first
    correct: NDArray[np.bool_]
    answers: tuple[tuple[str, ...], ...] | None = None  # n x m, "" = none could be read
    conf: NDArray[np.float64] | None = None  # log-probability, nan = none
    usd: NDArray[np.float64] | None = None  # dollars
    lat_ms: NDArray[np.float64] | None = None
    tok_in: NDArray[np.float64] | None = None
    tok_out: NDArray[np.float64] | None = None
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # model -> recorded text
    options: tuple[tuple[str, ...], ...] = ()  # n x as many as the question has, where it is a choice
    gold: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prompts)

    def column(self, model: str) -> int:
        return self.models.index(model)

    def rows(self, chosen: ArrayLike) -> Recorded:
        """Only the rows named by these places (or this mask)."""
        at = np.arange(len(self))[np.asarray(chosen)]

        def cut(values: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
            return None if values is None else values[at]

        return replace(
            self,
            prompts=_some(at, self.prompts),
            groups=_some(at, self.groups),
            correct=self.correct[at],
            answers=None if self.answers is None else _some(at, self.answers),
            conf=cut(self.conf),
            usd=cut(self.usd),
            lat_ms=cut(self.lat_ms),
            tok_in=cut(self.tok_in),
            tok_out=cut(self.tok_out),
            texts={model: _some(at, texts) for model, texts in self.texts.items()},
            options=_some(at, self.options) if self.options else (),
            gold=_some(at, self.gold) if self.gold else (),
        )


def folder(given: Path | None = None) -> Path:
    """The folder of the recorded routing data: `given` (or `given/routing`), else `../shared/data/routing` beside the
    repository. Raises `DataMissing`."""
    root = given or Path(__file__).resolve().parents[2].parent / "shared" / "data"
    for place in (root / "routing", root):
        if (place / "routellm_mmlu.csv.gz").is_file():
            return place
    raise DataMissing(f"missing data: no routellm_mmlu.csv.gz in {root}; name its folder with --data FOLDER")


def routellm_mmlu(folder: Path) -> Recorded:
    """Mixtral-8x7B and GPT-4 on 40 subjects of MMLU; rows that RouteLLM calls contaminated are dropped."""
    rows = _uncontaminated(_read(folder / "routellm_mmlu.csv.gz"))
    return _routellm("RouteLLM MMLU", rows, [r["subject"] for r in rows], {})


def routellm_gsm8k(folder: Path) -> Recorded:
    """The same pair on GSM8K, with both models' texts; contaminated rows are dropped."""
    rows = _uncontaminated(_read(folder / "routellm_gsm8k.csv.gz"))
    texts = {
        model: tuple(r[f"{side}_response"] for r in rows)
        for model, side in zip(ROUTELLM_MODELS, ("weak", "strong"), strict=True)
    }
    recorded = _routellm("RouteLLM GSM8K", rows, [""] * len(rows), texts)
    return replace(recorded, gold=tuple(r["gold"] for r in rows))


def mmlupro(folder: Path) -> Recorded:
    """13 models on 10-option questions of 10 categories; the few rows that some model lacks are dropped.

    Correct is `pred == answer`; tokens are characters / 4.
    """
    rows = _read(folder / "mmlupro_results.csv.gz")
    found = [k.removesuffix("|pred") for k in rows[0] if k.endswith("|pred")]
    models = (*SMALL_MMLUPRO, *(m for m in found if m not in SMALL_MMLUPRO))
    rows = [r for r in rows if all(r[f"{m}|pred"] for m in models)]
    answers = tuple(tuple(r[f"{m}|pred"].strip("-") for m in models) for r in rows)
    return Recorded(
        name="MMLU-Pro",
        prompts=tuple(r["question"] for r in rows),
        groups=tuple(r["category"] for r in rows),
        models=models,
        correct=np.array([[a == r["answer"] for a in line] for line, r in zip(answers, rows, strict=True)]),
        answers=answers,
        tok_out=_table(rows, models, "out_chars") / CHARS_PER_TOKEN,
        options=tuple(tuple(json.loads(r["options"])) for r in rows),
        gold=tuple(r["answer"] for r in rows),
    )


def zeroeval_gsm(folder: Path) -> Recorded:
    """43 models on GSM8K, zero-shot; the texts of four small ones. Models by accuracy: no prices are recorded."""
    return _zeroeval(folder, "gsm", "ZeroEval GSM8K")


def zeroeval_crux(folder: Path) -> Recorded:
    """51 models on CRUXEval; the texts of five small ones. Models by accuracy: no prices are recorded."""
    return _zeroeval(folder, "crux", "ZeroEval CRUX")


def cascade(folder: Path, benchmark: str, chain: str) -> Recorded:
    """A chain with recorded log-probabilities, dollars and milliseconds.

    benchmark: one of `CASCADE_BENCHMARKS`; chain: one of `CASCADES`. Dollars are those of the query itself, the
    confidence call included; a cascade pays the sum of what it asked.
    """
    rows = _read(folder / f"cascade_{benchmark}_{chain}.csv.gz")
    models = tuple(k.removesuffix("|correct") for k in rows[0] if k.endswith("|correct"))
    answered = f"{models[0]}|answer" in rows[0]
    return Recorded(
        name=f"{benchmark} {chain}",
        prompts=tuple(r["prompt"] for r in rows),
        groups=tuple(r.get("subject", "") for r in rows),
        models=models,
        correct=_table(rows, models, "correct") == 1,
        answers=tuple(tuple(r[f"{m}|answer"] for m in models) for r in rows) if answered else None,
        conf=_table(rows, models, "conf"),
        usd=_table(rows, models, "cost") / 1e6,
        lat_ms=_table(rows, models, "lat_ms"),
        tok_in=_table(rows, models, "tok_in"),
        tok_out=_table(rows, models, "tok_out"),
    )


def _routellm(name: str, rows: list[Row], groups: list[str], texts: Mapping[str, tuple[str, ...]]) -> Recorded:
    prompts = tuple(r["prompt"] for r in rows)
    tok_in = np.tile(np.array([[len(p)] for p in prompts]) / CHARS_PER_TOKEN, 2)
    lengths = [[max(1.0, len(t) / CHARS_PER_TOKEN) for t in texts[m]] for m in ROUTELLM_MODELS] if texts else None
    tok_out = np.ones_like(tok_in) if lengths is None else np.array(lengths).T
    return Recorded(
        name=name,
        prompts=prompts,
        groups=tuple(groups),
        models=ROUTELLM_MODELS,
        correct=np.array([[r["weak_correct"] == "1", r["strong_correct"] == "1"] for r in rows]),
        usd=(tok_in + tok_out) * np.array(ROUTELLM_USD_PER_MTOK) / 1e6,
        tok_in=tok_in,
        tok_out=tok_out,
        texts=texts,
    )


def _zeroeval(folder: Path, part: str, name: str) -> Recorded:
    questions = _read(folder / f"zeroeval_{part}_questions.csv.gz")
    place = {r["row"]: i for i, r in enumerate(questions)}
    found: dict[str, list[Row | None]] = {}
    for r in _read(folder / f"zeroeval_{part}_results.csv.gz"):
        found.setdefault(r["model"], [None] * len(questions))[place[r["row"]]] = r
    whole = {model: [r for r in rows if r is not None] for model, rows in found.items() if None not in rows}
    models = tuple(sorted(whole, key=lambda m: (sum(r["correct"] == "1" for r in whole[m]), m)))
    texts: dict[str, list[str]] = {}
    for r in _read(folder / f"zeroeval_{part}_small_outputs.csv.gz"):
        texts.setdefault(r["model"], [""] * len(questions))[place[r["row"]]] = r["output"]
    by_model = [whole[m] for m in models]
    chars_in = np.array([[float(q["prompt_chars"])] for q in questions])
    return Recorded(
        name=name,
        prompts=tuple(q["question"] for q in questions),
        groups=("",) * len(questions),
        models=models,
        correct=np.array([[r["correct"] == "1" for r in rows] for rows in by_model]).T,
        answers=tuple(zip(*([r["answer"] for r in rows] for rows in by_model), strict=True)),
        tok_in=np.tile(chars_in / CHARS_PER_TOKEN, len(models)),
        tok_out=np.array([[float(r["out_chars"] or 0) for r in rows] for rows in by_model]).T / CHARS_PER_TOKEN,
        texts={model: tuple(lines) for model, lines in texts.items()},
        gold=tuple(q["gold"] for q in questions),
    )


def _some(at: NDArray[np.int_], values: Sequence[T]) -> tuple[T, ...]:
    return tuple(values[i] for i in at)


def _table(rows: list[Row], models: Sequence[str], column: str) -> NDArray[np.float64]:
    """(n, m); an empty cell is nan."""
    return np.array([[float(r[f"{m}|{column}"] or "nan") for m in models] for r in rows])


def _uncontaminated(rows: list[Row]) -> list[Row]:
    return [r for r in rows if r["contaminated"] != "1"]


def _read(path: Path) -> list[Row]:
    if not path.is_file():
        raise DataMissing(f"missing data: no file {path}; name the folder of the recorded data with --data FOLDER")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


LOADERS: Mapping[str, Callable[[Path], Recorded]] = {
    "routellm_mmlu": routellm_mmlu,
    "routellm_gsm8k": routellm_gsm8k,
    "mmlupro": mmlupro,
    "zeroeval_gsm": zeroeval_gsm,
    "zeroeval_crux": zeroeval_crux,
}
