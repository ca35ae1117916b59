"""Recorded sets as one model's answers with a confidence each, learnt where it has to be."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protocols.answers import Signals
from recorded import data as recorded
from recorded.embeddings import embedded
from swarm.dispatch.calibrate import confidence, fit

PER_CLASS = 10
SEED = 7
GSM_VOTERS = ("Meta-Llama-3.1-8B-Instruct", "Qwen2-7B-Instruct", "Phi-3.5-mini-instruct", "gemma-2-9b-it")
CRUX_VOTERS = ("Qwen2.5-7B-Instruct", "Meta-Llama-3.1-8B-Instruct", "Phi-3.5-mini-instruct", "gemma-2-9b-it")
PRO_VOTERS = tuple(reversed(recorded.SMALL_MMLUPRO))  # llama-3.1-8b first
HEADS = ("banking77", "clinc150")


@dataclass(frozen=True)
class Scored:
    """One model's answers, the population of a promise: how sure it is of each and whether it is right."""

    name: str
    sure: NDArray[np.float64]
    right: NDArray[np.bool_]

    def error_above(self, threshold: float) -> tuple[float, float]:
        """The error of the answers kept, and their share."""
        kept = self.sure >= threshold
        return (float(1 - self.right[kept].mean()) if kept.any() else 0.0), float(kept.mean())


def sets(data: Path) -> Iterator[Scored]:
    """The recorded sets, then the heads where their messages are there."""
    yield _shorter_is_surer(recorded.routellm_mmlu(data), recorded.ROUTELLM_MODELS[0])
    yield _shorter_is_surer(recorded.routellm_gsm8k(data), recorded.ROUTELLM_MODELS[0])
    yield _agreeing(recorded.zeroeval_gsm(data), GSM_VOTERS)
    yield _agreeing(recorded.zeroeval_crux(data), CRUX_VOTERS)
    yield _agreeing(recorded.mmlupro(data), PRO_VOTERS)
    for benchmark in recorded.CASCADE_BENCHMARKS:
        yield _stated(recorded.cascade(data, benchmark, "llama"), "llama3.1-8b")
        yield _stated(recorded.cascade(data, benchmark, "qwen_oai"), "gpt-4o-mini")
    for folder in _heads(data):
        yield _head(folder)


def n_sets(data: Path) -> int:
    """How many `sets` yields."""
    return 5 + 2 * len(recorded.CASCADE_BENCHMARKS) + len(_heads(data))


def _heads(data: Path) -> list[Path]:
    return [folder for name in HEADS if (folder := data.parent / "tasks" / name).is_dir()]


def _shorter_is_surer(rows: recorded.Recorded, model: str) -> Scored:
    """The simplest confidence: by the length of the model's text, of the prompt where no text was recorded."""
    texts = rows.texts.get(model, rows.prompts)
    sure = 1 / (1 + np.array([len(t) for t in texts]) / 1000)
    return Scored(f"{rows.name}, by length", sure, rows.correct[:, rows.column(model)])


def _agreeing(rows: recorded.Recorded, voters: Sequence[str]) -> Scored:
    """The first voter's answers; the share of the other families that say the same is the signal."""
    assert rows.answers is not None
    columns = [rows.column(v) for v in voters]
    signals = []
    for line in rows.answers:
        own, *others = (line[c] for c in columns)
        agreement = sum(own == other for other in others) / len(others) if own else 0.0
        most = Counter(others).most_common(1)[0][1] / len(others)
        signals.append(Signals(agreement=agreement, margin=agreement - most))
    return _learnt(f"{rows.name}, agreement", signals, rows.correct[:, columns[0]])


def _stated(rows: recorded.Recorded, model: str) -> Scored:
    """The recorded log-probability as the stated probability."""
    assert rows.conf is not None
    column = rows.column(model)
    signals = [Signals(p=float(np.exp(c))) for c in rows.conf[:, column]]
    return _learnt(f"{rows.name}: {model}", signals, rows.correct[:, column])


def _head(folder: Path) -> Scored:
    """Softmax regression on embeddings of `PER_CLASS` training messages a class, asked about the dev messages.

    Messages out of scope (label `oos`) are asked too, and always answered wrongly: no example shows them.
    """
    from sklearn.linear_model import LogisticRegression

    by_label: dict[str, list[str]] = defaultdict(list)
    train = _messages(folder / "train.jsonl.gz")
    for text, label in random.Random(SEED).sample(train, len(train)):
        if label != "oos" and len(by_label[label]) < PER_CLASS:
            by_label[label].append(text)
    examples = [(text, label) for label, texts in by_label.items() for text in texts]
    asked = _messages(folder / "dev.jsonl.gz")
    known, new = embedded([text for text, _ in examples]), embedded([text for text, _ in asked])
    head = LogisticRegression(C=10.0, max_iter=300).fit(known, [label for _, label in examples])
    shares = head.predict_proba(new)
    nearest = np.sort(new @ known.T, axis=1)[:, -5:].mean(axis=1)
    top = np.sort(shares, axis=1)[:, -2:]
    signals = [
        Signals(p=float(p), margin=float(p - runner_up), similarity=float(near))
        for (runner_up, p), near in zip(top, nearest, strict=True)
    ]
    right = head.classes_[shares.argmax(axis=1)] == np.array([label for _, label in asked])
    return _learnt(f"{folder.name} head, {PER_CLASS} a class", signals, right)


def _messages(path: Path) -> list[tuple[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [(row["text"], row["label"]) for row in map(json.loads, lines)]


def _learnt(name: str, signals: Sequence[Signals], right: NDArray[np.bool_]) -> Scored:
    """A third of the answers teaches the confidence of the others, which are the population."""
    order = np.random.default_rng(SEED).permutation(len(signals))
    train, rest = order[: len(order) // 3], order[len(order) // 3 :]
    learnt = fit([signals[i] for i in train], [bool(right[i]) for i in train])
    return Scored(name, np.array([confidence(signals[i], learnt) for i in rest]), right[rest])
