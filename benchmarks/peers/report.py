"""What the run says: tables for the terminal as they come, and the same as plain text at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from peers.rounds import Series

_PEERS = {"llama-server": "than llama-server", "Llama in a loop": "than Llama"}


class Report:
    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(width=None if sys.stdout.isatty() else 120)
        self._plain: list[str] = []

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
    ) -> None:
        """Print a table now, and keep it for the end."""
        table = Table(*columns, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)
        for note in notes:
            self._console.print(note, highlight=False, markup=False)
        lines = [f"**{title}**", "", _line(columns), _line(["---"] * len(columns)), *map(_line, rows)]
        self._plain += ["\n".join([*lines, *(["", *notes] if notes else [])])]

    def compared(self, title: str, unit: str, series: Sequence[Series], notes: Sequence[str] = ()) -> None:
        """Units a second of every contestant, and by what factor that is more than each peer's."""
        peers = {s.name: s.unit_s for s in series if s.name in _PEERS}
        columns = ["", f"{unit}/s", "slowest to fastest round", "ms each", *(_PEERS[name] for name in peers)]
        rows = [
            [s.name, f"{1 / s.unit_s:.1f}", s.spread(), f"{1000 * s.unit_s:.1f}"]
            + [f"{peer_s / s.unit_s:.2f}×" for peer_s in peers.values()]
            for s in series
        ]
        self.table(title, columns, rows, notes)

    def close(self) -> None:
        """The plain-text block."""
        self._console.rule("for the docs")
        for part in self._plain:
            self._console.print(part, end="\n\n", highlight=False, markup=False, soft_wrap=True)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
