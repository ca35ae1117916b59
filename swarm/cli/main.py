"""The commands."""

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
from swarm.cli.cache import app as cache_app
from swarm.cli.dead import app as dead_app
from swarm.cli.effects import effects
from swarm.cli.memory import app as memory_app
from swarm.cli.options import Json, StorePlace, existing
from swarm.cli.store import app as store_app
from swarm.engine.llama.quantize import requantize
from swarm.engine.llama.tune.search import tune
from swarm.errors import SwarmError, SwarmFileError
from swarm.models.cli import build as models_app
from swarm.observe.secrets import cleaned

app = typer.Typer(
    name="swarm",
    help="Swarms of small local specialists under one budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(models_app(requantize, tune), name="models")
app.add_typer(cache_app, name="cache")
app.add_typer(dead_app, name="dead")
app.add_typer(memory_app, name="memory")
app.add_typer(store_app, name="store")
app.command()(effects)

File = Annotated[Path, typer.Argument(help="A swarm file (YAML).")]


def main() -> None:
    """Entry point: known errors are one line and an exit code, never a traceback."""
    try:
        app()
    except SwarmFileError as e:
        _stop(str(e), 2)
    except SwarmError as e:
        _stop(cleaned(f"swarm: {e}"), 1)
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
    store: StorePlace = None,
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
def resume(
    run: Annotated[str, typer.Argument(help="A run that was broken off, as `swarm runs` lists it.")],
    store: StorePlace = None,
    json: Json = False,
    progress: Annotated[bool, typer.Option(help="Show a progress bar on a terminal.")] = True,
) -> None:
    """Go on with a run that was broken off: no step that was finished is asked or paid again."""
    from swarm.cli.resume import resume_run
    from swarm.observe.log import configure

    configure(json=False, level="warning")
    _leave(resume_run(existing(store), run, json=json, progress=progress))


@app.command()
def end(
    name: Annotated[str, typer.Argument(help="A swarm that was launched with `detach`, by its name.")],
    address: Annotated[str, typer.Option(help="The cluster's HOST:PORT.")],
) -> None:
    """End a swarm that was left running, and its hosts; a run that this breaks off can be resumed."""
    from swarm.runtime.launch import end as end_swarm

    run = end_swarm(name, address)
    if run is None:
        typer.echo(f"{name} is ended; it was not up, so it had no run")
        return
    typer.echo(
        f"{name} is ended; its run was {run}. If that was broken off, `swarm resume {run}` goes on with it, "
        "with --store where one was given"
    )


@app.command()
def replay(
    run: Annotated[str, typer.Argument(help="A run, as `swarm runs` lists it.")],
    file: Annotated[Path | None, typer.Argument(help="A swarm file. [default: the run's own, as it is now]")] = None,
    store: StorePlace = None,
    json: Json = False,
) -> None:
    """Decide again on what happened in a run, by today's rules and at no cost; show what would differ."""
    from swarm.cli.replay import replay as decided_again

    for line in decided_again(existing(store), run, file, json):
        typer.echo(line)


@app.command()
def receipt(
    run: Annotated[str, typer.Argument(help="A run, as `swarm runs` lists it.")],
    store: StorePlace = None,
    json: Json = False,
) -> None:
    """Print what a run cost, tier by tier."""
    from swarm.cli.run import show_receipt
    from swarm.runtime.run import receipt_of
    from swarm.state.store import open_store

    async def read() -> object:
        kept = await open_store(existing(store))
        try:
            return await receipt_of(kept, run)
        finally:
            await kept.close()

    show_receipt(asyncio.run(read()), json, sys.stdout)  # type: ignore[arg-type]


@app.command()
def calibrate(
    file: File,
    data: Annotated[
        Path | None, typer.Option("--data", help='JSON lines: {"input": {...}, "labels": {"STEP": {...}}}.')
    ] = None,
    from_runs: Annotated[
        bool, typer.Option("--from-runs", help="Learn from what dearer tiers said in past runs, too.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The calibration file. [default: beside the swarm file]")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw reliability diagrams into this PNG.")] = None,
    paid: Annotated[bool, typer.Option("--paid", help="Ask remote tiers too, within the file's budget.")] = False,
    store: StorePlace = None,
    progress: Annotated[bool, typer.Option(help="Show a progress bar on a terminal.")] = True,
) -> None:
    """Learn from labelled items how sure each tier's answers are, and what can be promised about them."""
    from swarm.cli.calibrate import Request, calibrate_swarm
    from swarm.observe.log import configure

    configure(json=False, level="warning")
    calibrate_swarm(Request(file, data, output, plot, paid, store, progress, from_runs))


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
    store: StorePlace = None,
    json: Json = False,
) -> None:
    """Say why each decision of a run was made, and what would have changed it."""
    from swarm.cli.explain import explain as told

    for line in told(existing(store), run, task, json):
        typer.echo(line)


@app.command()
def runs(store: StorePlace = None, json: Json = False) -> None:
    """List the runs that the store knows, the latest last."""
    import msgspec

    from swarm.state.base import RunRecord
    from swarm.state.store import open_store

    async def read() -> list[RunRecord]:
        kept = await open_store(existing(store))
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


def _leave(code: int) -> NoReturn:
    """Go at once: a tool that nobody waits for any more may work on in its thread, and Python would wait for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _stop(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(code)
