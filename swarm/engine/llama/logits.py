"""Logits, the model's raw output, and what makes log-probabilities (nats) of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]  # of one token, shape (vocabulary,)
Rows = NDArray[np.float32]  # shape (tokens, vocabulary)


def log_normalisers(rows: Rows) -> NDArray[np.float64]:
    """log Σ exp of each row: shape (rows, vocabulary) → (rows,). Row by row, so that one stays in the CPU's cache."""
    result = np.empty(len(rows), np.float64)
    scratch = np.empty(rows.shape[1:], np.float32)
    for index, row in enumerate(rows):
        top = row.max()
        np.subtract(row, top, out=scratch)
        np.exp(scratch, out=scratch)
        result[index] = float(top) + float(np.log(scratch.sum()))  # summed in pairs: six digits in 32 bits
    return result
