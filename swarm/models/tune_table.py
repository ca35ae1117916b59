"""The table of a tuning run, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from swarm.models.tuned import Row, Setting, Tuned, described

_TITLES = ("", "prompt", "generated", "messages", "changed", "size")


def show_tuned(tuned: Tuned, console: Console) -> None:
    """Print the table, the choice, and what could be had otherwise."""
    table = Table(box=box.SIMPLE_HEAD, title=f"{tuned.model} on {tuned.cpu.name}, {tuned.cpu.cores} cores")
    for i, title in enumerate(_TITLES):
        table.add_column(title, justify="right" if i else "left", no_wrap=i == 0)
    stage = None
    for row in tuned.rows:
        if stage not in (None, row.stage):
            table.add_section()
        stage = row.stage
        table.add_row(*_cells(row), style="bold" if is_chosen(row, tuned) else None)
    console.print(table)
    console.print("tokens and messages a second; changed: clear answers of the published file", style="dim")
    for problem, rows in _problems(tuned.rows).items():
        names = ", ".join(map(described, rows))
        console.print(escape(f"not measured: {names}: {problem}"), style="dim", highlight=False, soft_wrap=True)
    console.print(f"chosen: [green]{escape(in_words(tuned.chosen))}[/]", highlight=False)
    if tuned.note:
        console.print(escape(tuned.note), highlight=False, soft_wrap=True)


def as_data(tuned: Tuned) -> Any:
    """The same as plain data for JSON."""
    return msgspec.to_builtins(tuned)


def is_chosen(row: Row, tuned: Tuned) -> bool:
    """Whether the choice has what this row was about."""
    row_setting, chosen = row.setting, tuned.chosen
    match row.stage:
        case "device":
            return row_setting.gpu_layers == chosen.gpu_layers
        case "format":
            return row_setting.format == chosen.format
        case "threads":
            return row_setting.threads == chosen.threads
        case "batch":
            return row_setting.batch == chosen.batch
        case "attention":
            return (row_setting.flash_attention, row_setting.kv_format) == (chosen.flash_attention, chosen.kv_format)


def in_words(setting: Setting) -> str:
    """A whole setting in one line."""
    flash = "flash attention" if setting.flash_attention else "no flash attention"
    gpu = ", on the GPU" if setting.gpu_layers else ""
    threads = f"{setting.threads} thread{'s' if setting.threads > 1 else ''}"
    return f"{setting.format}, {threads}, batch {setting.batch}, {flash}, {setting.kv_format} KV{gpu}"


def _problems(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows without rates by what kept them from it."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.problem is not None:
            found.setdefault(row.problem, []).append(row)
    return found


def _cells(row: Row) -> list[str]:
    return [
        described(row),
        *("–" if rate is None else f"{rate:,.0f}" for rate in (row.prompt, row.generated)),
        "–" if row.messages is None else f"{row.messages:,.1f}",
        _changed(row),
        "–" if row.n_bytes is None else f"{row.n_bytes / 1e6:,.0f} MB",
    ]


def _changed(row: Row) -> str:
    if row.changed is None or not row.checked:
        return "–"
    return f"{row.changed / row.checked:.1%} of {row.checked}"
