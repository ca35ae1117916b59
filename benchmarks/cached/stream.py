"""Labelled messages as a stream of requests, each with its nearest among those that a cache holds by then."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from recorded.data import DataMissing
from recorded.embeddings import embedded

SETS = ("clinc150", "banking77")
LISTED = 400  # of each message's neighbours in the whole set; who finds too few of them held looks at all that are
ROWS = 512  # of which the neighbours are found at a time


@dataclass(frozen=True)
class Messages:
    """n messages. `near[i]`: the places of the `LISTED` nearest to i, the nearest first, `similar[i]` their cosines."""

    name: str
    vectors: NDArray[np.float32]
    labels: NDArray[np.int64]
    near: NDArray[np.int32]
    similar: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)


class Held:
    """The messages that one cache holds. What it finds is what a product with all their vectors would find."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages
        self._is_held = np.zeros(len(messages), bool)
        self._places: list[int] = []

    def __len__(self) -> int:
        return len(self._places)

    def add(self, place: int) -> None:
        self._is_held[place] = True
        self._places.append(place)

    def nearest(self, place: int, k: int) -> tuple[NDArray[np.int_], NDArray[np.float32]]:
        """Places and cosines of the `k` nearest that are held, the nearest first."""
        near = self._messages.near[place]
        found = np.flatnonzero(self._is_held[near])[:k]
        if len(found) == min(k, len(self._places)):
            return near[found].astype(np.int64), self._messages.similar[place][found]
        places = np.array(self._places)
        similar = self._messages.vectors[places] @ self._messages.vectors[place]
        order = np.argsort(-similar)[:k]
        return places[order], similar[order]


def folder(given: Path | None = None) -> Path:
    """The folder of the labelled tasks: `given` (or `given/tasks`), else `../shared/data/tasks` beside the repository.

    Raises `DataMissing`.
    """
    root = given or Path(__file__).resolve().parents[2].parent / "shared" / "data"
    for place in (root / "tasks", root):
        if (place / SETS[0] / "train.jsonl.gz").is_file():
            return place
    raise DataMissing(f"missing data: no {SETS[0]}/train.jsonl.gz in {root}; name its folder with --data FOLDER")


def messages(folder: Path, name: str) -> Messages:
    """All of a set, train and dev together. Raises `DataMissing`, and `ModelNotFound` without the embedding model."""
    rows = [row for part in ("train", "dev") for row in _read(folder / name / f"{part}.jsonl.gz")]
    vectors = embedded([row["text"] for row in rows])
    labels = np.unique([row["label"] for row in rows], return_inverse=True)[1].astype(np.int64)
    near = np.empty((len(rows), LISTED), np.int32)
    similar = np.empty((len(rows), LISTED), np.float32)
    for start in range(0, len(rows), ROWS):
        part = slice(start, start + ROWS)
        cosines = vectors[part] @ vectors.T
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = -2.0
        chosen = np.argpartition(-cosines, LISTED, axis=1)[:, :LISTED]
        values = np.take_along_axis(cosines, chosen, 1)
        order = np.argsort(-values, axis=1)
        near[part] = np.take_along_axis(chosen, order, 1)
        similar[part] = np.take_along_axis(values, order, 1)
    return Messages(name, vectors, labels, near, similar)


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise DataMissing(f"missing data: no file {path}; name the folder of the labelled tasks with --data FOLDER")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
