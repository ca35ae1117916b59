"""Cost–quality curves for the terminal, and as PNG where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from swarm.backtest.curve import Curve

MARKS = "●○◆◇▲△■□"


def text_chart(curves: Mapping[str, Curve], *, width: int = 60, height: int = 16, cost: str = "cost") -> str:
    """Each curve with a mark of its own, the first on top. `cost` names the lower axis. Raises ValueError for none."""
    (left, right), (low, high) = _ranges(curves)
    cells = [[" "] * width for _ in range(height)]
    for mark, curve in reversed(list(zip(_marks(len(curves)), curves.values(), strict=True))):
        for column in range(width):
            x = left + (right - left) * column / (width - 1)
            if not curve.cost[0] - 1e-12 <= x <= curve.cost[-1] + (right - left) / width:
                continue
            y = float(curve.at(x))
            cells[height - 1 - round((y - low) / (high - low) * (height - 1))][column] = mark
    lines = [f"{_edge(i, height, low, high):>7} │{''.join(row)}" for i, row in enumerate(cells)]
    axis = f"{'':>7} └{'─' * width}"
    under = f"{'':>9}{left:<.4g}{cost:^{max(1, width - len(f'{left:.4g}') - len(f'{right:.4g}'))}}{right:.4g}"
    legend = "   ".join(f"{mark} {name}" for mark, name in zip(_marks(len(curves)), curves, strict=True))
    return "\n".join([*lines, axis, under, f"{'':>9}{legend}"])


def png_chart(curves: Mapping[str, Curve], path: Path, *, cost: str = "cost") -> None:
    """Raises `ModuleNotFoundError` with what to install."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("a PNG needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(curve.cost, curve.quality, label=name, marker="o" if len(curve.cost) < 12 else None)
    axes.set(xlabel=cost, ylabel="quality")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def _marks(n: int) -> str:
    return (MARKS * (n // len(MARKS) + 1))[:n]


def _ranges(curves: Mapping[str, Curve]) -> tuple[tuple[float, float], tuple[float, float]]:
    if not curves:
        raise ValueError("a chart needs a curve")
    x = np.concatenate([c.cost for c in curves.values()])
    y = np.concatenate([c.quality for c in curves.values()])
    spread = max(1e-9, float(np.ptp(y)))
    return (float(x.min()), max(float(x.max()), float(x.min()) + 1e-9)), (float(y.min()), float(y.min()) + spread)


def _edge(line: int, height: int, low: float, high: float) -> str:
    """A number at the top, the middle and the bottom."""
    if line not in (0, height // 2, height - 1):
        return ""
    return f"{high - (high - low) * line / (height - 1):.3f}"
