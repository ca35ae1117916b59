"""`swarm run`: a file of items through a swarm, with progress, a clean way out, and the receipt."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from protocols.tasks import Result
from swarm.cli.jsonl import Line, OrderedWriter, arriving
from swarm.errors import SwarmError
from swarm.observe.receipt import Receipt
from swarm.observe.table import rendered
from swarm.runtime.launch import launch, planned
from swarm.runtime.swarm import Swarm

FAILED, INTERRUPTED, TERMINATED = 1, 130, 143
WAITING = 4  # times `max_in_flight`: the most records that wait for an earlier one
LOADING = "Loading models (the first launch of a swarm also calibrates its tiers, about a minute)"


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of `swarm run`."""

    file: Path
    input: str
    output: str
    runtime: Literal["ray", "in-process"] | None
    address: str | None
    store: str | None
    json: bool
    progress: bool
    resume: str | None = None  # a run to go on with


def answer_all(request: Request) -> int:
    """Run it; the exit code."""
    plan = planned(request.file)
    _refuse_same_file(request.input, request.output)
    note = {"input": _whole(request.input), "output": _whole(request.output), "sha256": sha256(request.input),
            "runtime": request.runtime, "address": request.address}  # fmt: skip
    with _opened(request.input, "rb") as source, _opened(request.output, "ab") as out:
        console = Console(stderr=True)
        show = request.progress and console.is_terminal
        try:
            with console.status(LOADING) if show else _nothing():
                running = launch(plan, runtime=request.runtime, address=request.address, store=request.store, note=note)
        except KeyboardInterrupt:
            print("Interrupted before the swarm was up; nothing was asked", file=sys.stderr)
            return INTERRUPTED
        code = 0
        with running:
            if request.input != "-" and Path(request.input).is_file():
                running.expect(sum(1 for line in source if line.strip()))
                source.seek(0)
            if request.output != "-":
                out.truncate(0)  # what an earlier run has left is dropped only now, when there is a swarm to write anew
            writer = OrderedWriter(out)
            try:
                known = _known(running, request.resume) if request.resume is not None else {}
                broken = asyncio.run(_pump(running, source, writer, _progress(console, request, show), known))
                if broken:
                    code = FAILED
                    print(f"swarm: {broken:,} items broke down; their records say why", file=sys.stderr)
            except (KeyboardInterrupt, asyncio.CancelledError) as e:
                code = INTERRUPTED if isinstance(e, KeyboardInterrupt) else TERMINATED
                go_on = f"`swarm resume {running.run_id}` goes on with it"
                print(f"Interrupted: what was finished is written; {go_on}", file=sys.stderr)
            running.finish()
            receipt = running.receipt()
        show_receipt(receipt, request.json, sys.stderr if request.output == "-" else sys.stdout)
    return code


def show_receipt(receipt: Receipt, as_json: bool, out: IO[str]) -> None:
    """Print a receipt as JSON or as tables."""
    if as_json:
        print(json.dumps(msgspec.to_builtins(receipt), ensure_ascii=False), file=out)
    else:
        Console(file=out, width=None if out.isatty() else 140).print(rendered(receipt))


def _known(swarm: Swarm, run: str) -> dict[int, Result]:
    """Results by position, once what was broken off has been finished."""
    return {r.position: r for r in swarm.resume_sync(run) if r.position is not None}


async def _pump(
    swarm: Swarm,
    source: IO[bytes],
    writer: OrderedWriter,
    progress: Progress | None,
    known: Mapping[int, Result] = MappingProxyType({}),
) -> int:
    """Answer every line, writing each result as soon as those before it are written; how many items broke down.

    `known`: results by position that are there already.
    Raises what the writer raises, at once.
    """
    current = asyncio.current_task()
    assert current is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, current.cancel)
    bar = progress.add_task("", total=None) if progress else None
    running: set[asyncio.Task[None]] = set()
    window = swarm.plan.runtime.max_in_flight
    room = asyncio.Semaphore(window)
    broken = 0
    stopped_by: list[BaseException] = []  # the first is the cause

    async def one(position: int, line: Line) -> None:
        nonlocal broken
        record, is_broken = await _record(swarm, line, position, known.get(position))
        broken += is_broken
        writer.put(position, record)

    def over(task: asyncio.Task[None]) -> None:
        running.discard(task)
        room.release()
        if progress and bar is not None:
            progress.advance(bar)
        if not task.cancelled() and (error := task.exception()) is not None:
            if not stopped_by:
                current.cancel()
            stopped_by.append(error)

    try:
        if progress:
            progress.start()
        position = 0
        async for line in arriving(source):
            while running and writer.waiting > WAITING * window:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            await room.acquire()
            task = asyncio.create_task(one(position, line))
            running.add(task)
            task.add_done_callback(over)
            position += 1
            if progress and bar is not None:
                progress.update(bar, total=position)
        await asyncio.gather(*running)
        return broken
    except BaseException as e:
        stopped_by.append(e)
        raise stopped_by[0] from e.__cause__
    finally:
        if running:  # stopped in the swarm and not here: what ends over there meanwhile is written too
            await asyncio.to_thread(swarm.stop_tasks)
            await asyncio.gather(*running, return_exceptions=True)
        writer.flush()
        if progress:
            progress.stop()


async def _record(swarm: Swarm, line: Line, position: int, known: Result | None) -> tuple[dict[str, Any], bool]:
    """The item with the swarm's result beside its own keys, or an error record with the line's number.

    And whether the item broke down: the swarm could not say what became of it. A line that is no item did not.
    """
    if line.item is None:
        return {"line": line.number, "error": line.error}, False
    try:
        result = known or await swarm.run(line.item, position=position)
    except SwarmError as e:
        return {**line.item, "line": line.number, "error": str(e)}, True
    except Exception as e:  # the fault is ours, and the others' answers are worth having
        return {**line.item, "line": line.number, "error": f"{type(e).__name__}: {e}"}, True
    return {**line.item, "swarm": shown(result)}, False


def shown(result: Result) -> dict[str, Any]:
    """What the output says of a result."""
    steps = {
        name: {"status": s.status, "tier": s.tier, "confidence": _rounded(s.confidence), "reason": s.reason}
        for name, s in result.steps.items()
    }
    return {
        "task": result.task,
        "status": result.status,
        "output": result.output,
        "confidence": _rounded(result.confidence),
        "steps": steps,
        "cost": msgspec.to_builtins(result.cost),
        "ms": result.ms,
        "reason": result.reason,
    }


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def _progress(console: Console, request: Request, show: bool) -> Progress | None:
    if not show or (request.output == "-" and sys.stdout.isatty()):
        return None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def _refuse_same_file(input: str, output: str) -> None:
    """Writing begins before reading has ended."""
    with suppress(OSError):
        if "-" not in (input, output) and Path(input).samefile(output):
            raise SwarmError(f"{output}: is the input too; name another file for the results")


def sha256(name: str) -> str | None:
    """Of a file of items: who goes on with a run must find them where they were."""
    if name == "-" or not Path(name).is_file():
        return None
    with open(name, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _whole(name: str) -> str:
    return name if name == "-" else str(Path(name).absolute())


@contextmanager
def _opened(name: str, mode: Literal["rb", "ab"]) -> Iterator[IO[bytes]]:
    if name == "-" and mode == "rb":
        yield open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115 (a thread that still reads keeps it)
        return
    if name == "-":
        with _alone_on_stdout() as out:
            yield out
        return
    try:
        if mode == "ab":
            Path(name).parent.mkdir(parents=True, exist_ok=True)
        stream = open(name, mode)  # noqa: SIM115
    except OSError as e:
        raise SwarmError(f"{name}: {e.strerror}") from e
    with stream:
        yield stream


@contextmanager
def _alone_on_stdout() -> Iterator[IO[bytes]]:
    """The real stdout for results alone; whatever else prints there meanwhile, a pack's tool say, goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with open(kept, "wb", closefd=False) as out:
            yield out
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
