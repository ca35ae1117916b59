"""The commands: check, schema, run, calibrate, receipt, explain, runs, models."""

from __future__ import annotations

import asyncio
import json as jsonlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from swarm import __version__
from swarm.engine.llama.quantize import requantize
from swarm.engine.llama.tune.search import tune
from swarm.errors import SwarmError, SwarmFileError
from swarm.models.cli import build as models_app

app = typer.Typer(
    name="swarm",
    help="Swarms of small local specialists under one budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(models_app(requantize, tune), name="models")

File = Annotated[Path, typer.Argument(help="A swarm file (YAML).")]
StorePath = Annotated[Path | None, typer.Option("--store", help="The store's file. [default: in the cache folder]")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Entry point: known errors are one line and an exit code, never a traceback."""
    try:
        app()
    except SwarmFileError as e:
        _stop(str(e), 2)
    except SwarmError as e:
        _stop(f"swarm: {e}", 1)
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"swarmlet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """What stands before a command."""


@app.command()
def check(file: File) -> None:
    """Say what is wrong with a swarm file, all at once; exit code 2 if anything is."""
    from swarm.runtime.launch import planned

    plan = planned(file)
    typer.echo(f"{file}: fine. {len(plan.steps)} steps, plan {plan.hash[:12]}")
    for step in plan.steps:
        after = f" after {', '.join(sorted(step.needs))}" if step.needs else ""
        typer.echo(f"  {step.name}: {' → '.join(t.name for t in step.ladder)} at {step.accept_at:.2f}{after}")
    if plan.aim.certified:
        from swarm.dispatch.learnt import load
        from swarm.dispatch.rules import rules

        for name, rule in rules(plan, load(Path(plan.learnt)) if plan.learnt else None).items():
            typer.echo(f"  {name}: {rule.why}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of swarm files, for editors."""
    from swarm.config import json_schema

    typer.echo(jsonlib.dumps(json_schema(), indent=2))


@app.command()
def run(
    file: File,
    input: Annotated[str, typer.Option("--input", "-i", help="JSON lines to answer; - is stdin.")] = "-",
    output: Annotated[str, typer.Option("--output", "-o", help="Where results go; - is stdout.")] = "-",
    runtime: Annotated[str | None, typer.Option(help="ray or in-process, instead of the file's.")] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster to join, e.g. 127.0.0.1:6379.")] = None,
    store: StorePath = None,
    json: Json = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log as JSON lines.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "warning",
    progress: Annotated[bool, typer.Option(help="Show a progress bar on a terminal.")] = True,
) -> None:
    """Answer every line of a JSON-lines file with a swarm, then print the receipt."""
    from swarm.cli.run import Request, answer_all
    from swarm.observe.log import LEVELS, configure

    if log_level not in LEVELS:
        _stop(f"--log-level {log_level!r} is not known; use one of {', '.join(LEVELS)}", 2)
    configure(json=log_json, level=log_level)
    request = Request(file, input, output, _runtime_kind(runtime, address), address, store, json, progress)
    _leave(answer_all(request))


@app.command()
def receipt(
    run: Annotated[str, typer.Argument(help="A run, as `swarm runs` lists it.")],
    store: StorePath = None,
    json: Json = False,
) -> None:
    """Print what a run cost, tier by tier."""
    from swarm.cli.run import show_receipt
    from swarm.runtime.session import receipt_of
    from swarm.state.sqlite import SqliteStore

    async def read() -> object:
        kept = await SqliteStore.open(_existing(store))
        try:
            return await receipt_of(kept, run)
        finally:
            await kept.close()

    show_receipt(asyncio.run(read()), json, sys.stdout)  # type: ignore[arg-type]


@app.command()
def calibrate(
    file: File,
    data: Annotated[Path, typer.Option("--data", help='JSON lines: {"input": {...}, "labels": {"STEP": {...}}}.')],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The calibration file. [default: beside the swarm file]")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw reliability diagrams into this PNG.")] = None,
    paid: Annotated[bool, typer.Option("--paid", help="Ask remote tiers too, within the file's budget.")] = False,
    store: StorePath = None,
    progress: Annotated[bool, typer.Option(help="Show a progress bar on a terminal.")] = True,
) -> None:
    """Learn from labelled items how sure each tier's answers are, and what can be promised about them."""
    from swarm.cli.calibrate import Request, calibrate_swarm
    from swarm.observe.log import configure

    configure(json=False, level="warning")
    calibrate_swarm(Request(file, data, output, plot, paid, store, progress))


@app.command()
def backtest(
    recorded: Annotated[Path, typer.Argument(help="JSON lines of recorded answers, one for each query and tier.")],
    plot: Annotated[Path | None, typer.Option(help="Draw the curves into this PNG.")] = None,
    seed: Annotated[int, typer.Option(help="Which half of the queries teaches.")] = 0,
) -> None:
    """Compare ways up a ladder on recorded answers, in quality and dollars, without calling any model."""
    from swarm.cli.backtest import backtest as compare

    compare(recorded, plot, seed)


@app.command()
def explain(
    run: Annotated[str, typer.Argument(help="A run, as `swarm runs` lists it.")],
    task: Annotated[str | None, typer.Argument(help="One task of it. [default: all]")] = None,
    store: StorePath = None,
    json: Json = False,
) -> None:
    """Say why each decision of a run was made, and what would have changed it."""
    from swarm.cli.explain import explain as told

    for line in told(_existing(store), run, task, json):
        typer.echo(line)


@app.command()
def runs(store: StorePath = None, json: Json = False) -> None:
    """List the runs that the store knows, the latest last."""
    import msgspec

    from swarm.state.base import RunRecord
    from swarm.state.sqlite import SqliteStore

    async def read() -> list[RunRecord]:
        kept = await SqliteStore.open(_existing(store))
        try:
            return await kept.runs()
        finally:
            await kept.close()

    for record in asyncio.run(read()):
        if json:
            typer.echo(msgspec.json.encode(record).decode())
        else:
            started = datetime.fromtimestamp(record.started, UTC).strftime("%Y-%m-%d %H:%M:%S")
            typer.echo(f"{record.id}  {started} UTC  {record.swarm}{'' if record.finished else '  (not finished)'}")


def _runtime_kind(runtime: str | None, address: str | None) -> Literal["ray", "in-process"] | None:
    match runtime:
        case "ray":
            return "ray"
        case "in-process":
            return "in-process"
        case None:
            return "ray" if address else None
        case _:
            _stop(f"--runtime {runtime!r} is not known; use ray or in-process", 2)


def _existing(store: Path | None) -> Path:
    from swarm.models.store import default_home

    path = store or default_home() / "store.db"
    if not path.is_file():
        _stop(f"swarm: {path}: no store there; `swarm run` makes it, --store names another", 1)
    return path


def _leave(code: int) -> NoReturn:
    """Go at once: a tool that nobody waits for any more may work on in its thread, and Python would wait for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _stop(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(code)
