"""`swarm models tune | tuned`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, get_args

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from swarm.errors import ModelError
from swarm.models.cli_parts import AsJson, OwnRegistry, opened_store, print_json, said_plainly
from swarm.models.spec import Format
from swarm.models.store import PUBLISHED, ModelStore
from swarm.models.tune_table import as_data, show_tuned
from swarm.models.tuned import BUDGET_S, Heard, Tune, Tuned, TuneWishes, keep, kept

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A name from the registry; the model is here already.")]
Threads = Annotated[int | None, typer.Option(min=1, help="At most so many threads. [default: all cores granted]")]
Budget = Annotated[float, typer.Option(min=5, help="Seconds that it may take; more of them compare more answers.")]
Allow = Annotated[bool, typer.Option("--allow-changed-answers", help="Take the fastest, whatever it answers.")]
Only = Annotated[
    list[str] | None,
    typer.Option("--format", help="Try this format beside the published one. May be given several times."),
]


def add_tuning(app: typer.Typer, tune: Tune) -> None:
    """Add the two commands to `app`; `tune` does the measuring."""

    @app.command("tune")
    def tune_(
        model: Model,
        threads: Threads = None,
        budget: Budget = BUDGET_S,
        allow_changed_answers: Allow = False,
        formats: Only = None,
        registry: OwnRegistry = None,
        as_json: AsJson = False,
    ) -> None:
        """Measure how a model runs best on this machine, and remember it. Ctrl-C leaves everything as it was."""
        with said_plainly():
            store = opened_store(registry)
            wishes = TuneWishes(threads, budget, allow_changed_answers, _known(formats))
            with _bar(budget) as heard:
                result = tune(store, model, wishes, heard)
            keep(store, result)
            _show([result], as_json)

    @app.command("tuned")
    def tuned(
        models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="None means all.")] = None,
        registry: OwnRegistry = None,
        as_json: AsJson = False,
    ) -> None:
        """Show again what `tune` saw and chose on this machine."""
        with said_plainly():
            store = opened_store(registry)
            _show([found for name in models or _here(store) if (found := _kept(store, name, bool(models)))], as_json)


def _known(formats: list[str] | None) -> tuple[Format, ...] | None:
    by_name: dict[str, Format] = {name: name for name in get_args(Format)}
    unknown = [name for name in formats or () if name not in by_name]
    if unknown:
        raise ModelError(f"--format {unknown[0]}: no such format; formats: {', '.join(by_name)}")
    return tuple(by_name[name] for name in formats) if formats else None


def _here(store: ModelStore) -> list[str]:
    return [m.name for m in store.registry if m.entry.kind == "gguf" and store.state(m.name) == "here"]


def _kept(store: ModelStore, name: str, asked_for: bool) -> Tuned | None:
    found = kept(store, store.path(name, PUBLISHED).sha256)
    if found is None and asked_for:
        raise ModelError(f"model {name!r} was not tuned on this machine; run `swarm models tune {name}`")
    return found


def _show(results: list[Tuned], as_json: bool) -> None:
    if as_json:
        return print_json([as_data(result) for result in results])
    for result in results:
        show_tuned(result, Console())
    if not results:
        Console().print("no model was tuned on this machine; run `swarm models tune MODEL`", highlight=False)
    return None


@contextmanager
def _bar(budget_s: float) -> Iterator[Heard]:
    """A bar of the time budget on a terminal, a line for each step elsewhere."""
    console = Console(stderr=True)
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    started = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=budget_s)

        def heard(text: str) -> None:
            bar.update(task, description=escape(text), completed=min(budget_s, time.monotonic() - started))
            if not console.is_terminal:
                console.print(escape(text), highlight=False, soft_wrap=True)

        yield heard
