"""`swarm models list | pull | verify | tune | tuned`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from swarm.errors import ModelDamaged
from swarm.models.cli_parts import AsJson, OwnRegistry, opened_store, print_json, said_plainly
from swarm.models.files import Progress
from swarm.models.pull import PullSettings, Requantize
from swarm.models.registry import Registered
from swarm.models.store import ModelFiles, ModelStore
from swarm.models.tune_cli import add_tuning
from swarm.models.tuned import Tune

_STATES = {"here": "[green]here[/]", "missing": "[dim]not here[/]", "damaged": "[red]damaged[/]"}


def build(requantize: Requantize | None = None, tune: Tune | None = None) -> typer.Typer:
    """The sub-app. `requantize` makes the format that is likely to run best here; without it a model stays as it came.
    `tune` measures what does; without it there is no such command."""
    app = typer.Typer(help="The models on this machine: list, pull, verify, tune.", no_args_is_help=True)

    @app.command("list")
    def list_(registry: OwnRegistry = None, as_json: AsJson = False) -> None:
        """Show every model of the registry and whether it is on this machine."""
        with said_plainly():
            store = opened_store(registry)
            rows = [_row(store, model) for model in store.registry]
            print_json(rows) if as_json else Console().print(_table(rows, store.root))

    @app.command()
    def pull(
        names: Annotated[list[str], typer.Argument(help="Names from the registry.")],
        registry: OwnRegistry = None,
        as_json: AsJson = False,
    ) -> None:
        """Bring models to this machine, verified; what is here already is left alone."""
        with said_plainly():
            store = opened_store(registry)
            _say_licences(store, names)
            with _bars() as settings:
                files = store.pull_all(names, PullSettings(settings.on_progress, settings.on_note, requantize))
            _show_pulled(list(files.values()), as_json)

    @app.command()
    def verify(
        names: Annotated[list[str] | None, typer.Argument(help="Names; none means every model that is here.")] = None,
        registry: OwnRegistry = None,
        as_json: AsJson = False,
    ) -> None:
        """Hash every file again. A damaged one is set aside, and the exit code is 1."""
        with said_plainly():
            store = opened_store(registry)
            names = names or [model.name for model in store.registry if store.state(model.name) != "missing"]
            problems = {name: _verified(store, name) for name in names}
            _show_verified(problems, as_json)
        if any(problems.values()):
            raise typer.Exit(1)

    if tune is not None:
        add_tuning(app, tune)
    return app


app = build()


def _row(store: ModelStore, model: Registered) -> dict[str, Any]:
    entry = model.entry
    sizes = [file.size for file in entry.files]
    return {
        "name": model.name,
        "state": store.state(model.name),
        "kind": entry.kind,
        "bytes": None if None in sizes else sum(size or 0 for size in sizes),
        "context": entry.context,
        "licence": entry.licence.name,
        "licence_url": entry.licence.url,
        "tested": entry.tested,
        "description": entry.description,
    }


def _table(rows: list[dict[str, Any]], root: Path) -> Table:
    table = Table(box=box.SIMPLE_HEAD, caption=f"in {root}; * not fetched in our tests", caption_justify="left")
    for title in ("model", "state", "size", "context", "licence"):
        table.add_column(title, justify="right" if title in ("size", "context") else "left", no_wrap=title == "model")
    for row in rows:
        size = "?" if row["bytes"] is None else f"{row['bytes'] / 1e6:,.0f} MB"
        name = row["name"] if row["tested"] else f"{row['name']} *"
        table.add_row(name, _STATES[row["state"]], size, f"{row['context']:,}", row["licence"])
    return table


def _say_licences(store: ModelStore, names: list[str]) -> None:
    """Terms that are more than a known licence are said before anything is fetched."""
    for name in dict.fromkeys(names):
        licence = store.registry.get(name).entry.licence
        if licence.url is not None:
            Console(stderr=True).print(
                f"{name} comes under the {licence.name}: {licence.url}", highlight=False, soft_wrap=True
            )


@contextmanager
def _bars() -> Iterator[PullSettings]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:

        def advance(progress: Progress) -> None:
            if progress.file not in tasks:
                tasks[progress.file] = bars.add_task(progress.file)
            bars.update(tasks[progress.file], completed=progress.done_bytes, total=progress.total_bytes)

        yield PullSettings(advance, lambda note: console.print(escape(note), highlight=False, soft_wrap=True))


def _show_pulled(models: list[ModelFiles], as_json: bool) -> None:
    if as_json:
        return print_json([{"name": m.name, "weights": str(m.weights), "sha256": m.sha256} for m in models])
    for model in models:
        Console().print(f"[green]{model.name}[/]  {escape(str(model.weights))}", highlight=False, soft_wrap=True)
    return None


def _verified(store: ModelStore, name: str) -> str | None:
    """What is wrong with the model, None when nothing is."""
    try:
        store.verify(name)
    except ModelDamaged as e:
        return str(e)
    return None


def _show_verified(problems: dict[str, str | None], as_json: bool) -> None:
    if as_json:
        return print_json(
            [{"name": name, "ok": problem is None, "problem": problem} for name, problem in problems.items()]
        )
    for name, problem in problems.items():
        line = f"[red]{escape(problem)}[/]" if problem else f"[green]{name}[/]  as pulled"
        Console().print(line, highlight=False, soft_wrap=True)
    return None


if __name__ == "__main__":
    app()
