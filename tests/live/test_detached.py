"""A dispatcher that outlives the program that started it, on a real cluster."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs
from typer.testing import CliRunner

import swarm
from protocols.codec import WireError
from protocols.events import StepAsked, TaskFinished
from swarm.cli.main import app
from swarm.errors import LaunchError
from swarm.runtime import detached
from swarm.runtime.dispatcher_actor import DispatcherActor
from swarm.runtime.launch import end as end_swarm

SWARM = """\
schema: swarm/v1
name: relay
specialists:
  work: {kind: tool, tools: work.py, input: [item], output_schema: {type: object, required: [said]}}
steps: {work: {specialist: work, input: {item: "${input.item}"}}}
runtime: {kind: ray, max_in_flight: 8}
"""
TOOLS = """\
import pathlib, time

def run(item):
    if item.startswith("/"):
        wait_until = time.monotonic() + 30
        while not pathlib.Path(item).exists() and time.monotonic() < wait_until:
            time.sleep(0.05)
        return {"said": "it came" if pathlib.Path(item).exists() else "it did not come"}
    time.sleep(float(item))
    return {"said": f"slept {item}"}
"""
FAILS_LATE = """\
import pathlib, time
until = time.monotonic() + 60
while not pathlib.Path("GATE").exists() and time.monotonic() < until:
    time.sleep(0.05)
raise RuntimeError("not today")

def run(item):
    return {"said": item}
"""
STARTS = """\
import sys, swarm
s = swarm.launch(sys.argv[1], address=sys.argv[2], detach="relay", store=sys.argv[3])
print(s.run_id, flush=True)
s.run_sync({"item": "2"})
"""
LISTENS = """\
import asyncio, sys, swarm
async def listen(s):
    async for event in s.stream({"item": sys.argv[2]}):
        print(type(event).__name__, flush=True)
with swarm.connect("relay", sys.argv[1]) as s:
    asyncio.run(listen(s))
"""
TOLD = ["TaskAccepted", "StepAsked", "StepAccepted", "TaskFinished"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "work.py").write_text(TOOLS)
    path = tmp_path / "relay.yaml"
    path.write_text(SWARM)
    return path


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of one node."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / f"swarmlet-d{os.getpid()}"
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--block", "--head", "--num-cpus=2", f"--port={port}",
        "--disable-usage-stats", "--object-store-memory=100000000", "--include-dashboard=false", f"--temp-dir={folder}",
    ]  # fmt: skip
    node = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert time.monotonic() < deadline and node.poll() is None, "ray did not start"
            time.sleep(0.2)
    yield f"127.0.0.1:{port}"
    node.send_signal(signal.SIGTERM)
    node.wait(timeout=30)


@pytest.fixture
def relay(cluster: str, file: Path, tmp_path: Path) -> Iterator[swarm.Swarm]:
    """The swarm, detached, by the name of `relay`."""
    launched = swarm.launch(file, address=cluster, detach=True, store=tmp_path / "s.db")
    yield launched
    launched.shut_down()


async def told(running: swarm.Swarm, item: object) -> list[tuple[str, ...]]:
    """What a stream tells of one item: kinds, with the step and tier or the end's status and reason."""
    seen: list[tuple[str, ...]] = []
    async for event in running.stream({"item": item}):
        match event:
            case TaskFinished(result=result):
                seen.append((type(event).__name__, result.status, result.reason, str(result.output)))
            case _:
                where = (str(getattr(event, key, "")) for key in ("step", "tier", "status", "reason", "output"))
                seen.append((type(event).__name__, *where))
    return seen


def refusal(cluster: str, *, unlike: str) -> str:
    """Why nobody can connect to the swarm, as soon as that is not `unlike`."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with pytest.raises(LaunchError) as refused:
            swarm.connect("relay", cluster)
        if unlike not in str(refused.value):
            return str(refused.value)
        time.sleep(0.2)
    raise AssertionError(f"after 60 s still: {unlike}")


def ended(cluster: str) -> str:
    """What `swarm end` says, after which nobody finds the swarm."""
    done = CliRunner().invoke(app, ["end", "relay", "--address", cluster])
    assert done.exit_code == 0
    with pytest.raises(LaunchError, match="no detached swarm 'relay'"):
        swarm.connect("relay", cluster)
    return done.stdout.strip()


def test_a_swarm_goes_on_when_its_program_is_killed(cluster: str, file: Path, tmp_path: Path) -> None:
    """Its task is finished all the same, another program finds it by name, and whoever ends it ends all of it."""
    store = tmp_path / "s.db"
    program = subprocess.Popen(
        [sys.executable, "-c", STARTS, str(file), cluster, str(store)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert program.stdout is not None
    run = program.stdout.readline().decode().strip()
    assert run.startswith("r-"), program.communicate()[1].decode()
    time.sleep(0.5)
    program.kill()
    program.wait()

    with swarm.connect("relay", cluster) as found:
        assert found.run_id == run
        assert found.run_sync({"item": "0"}).output == {"work": {"said": "slept 0"}}
        deadline = time.monotonic() + 30
        while found.receipt().tasks != {"done": 2} and time.monotonic() < deadline:
            time.sleep(0.2)
        assert found.receipt().tasks == {"done": 2}
        assert [health.host for health in found.health()] == ["host-0"]
    again = swarm.connect("relay", cluster)
    assert again.run_id == run, "closing had let go of it, and no more"
    again.shut_down()
    with pytest.raises(LaunchError, match=r"no detached swarm 'relay'.*there is none"):
        swarm.connect("relay", cluster)


def test_what_goes_wrong_over_there_is_said_here(cluster: str, file: Path, tmp_path: Path) -> None:
    """A name that is taken, no cluster, and an error of the swarm's own are told in one line each."""
    with pytest.raises(LaunchError, match="needs a cluster that outlives this process"):
        swarm.launch(file, detach=True)
    with pytest.raises(LaunchError, match="found again by its name"):
        swarm.launch(file, address=cluster, detach="")
    first = swarm.launch(file, address=cluster, detach=True, store=tmp_path / "s.db")
    try:
        with pytest.raises(LaunchError, match="'relay' is running already"):
            swarm.launch(file, address=cluster, detach=True, store=tmp_path / "t.db")
        with pytest.raises(swarm.SwarmError, match="not in the store"):
            first.resume_sync("r-0")
        assert first.run_sync({"item": "0"}).status == "done"
    finally:
        first.shut_down()


def test_a_swarm_whose_file_is_gone_is_ended_by_its_name(cluster: str, file: Path, tmp_path: Path) -> None:
    """Nobody can connect to it, but `swarm end` ends it."""
    with swarm.launch(file, address=cluster, detach=True, store=tmp_path / "s.db") as launched:
        run = launched.run_id
    file.unlink()
    with pytest.raises(swarm.SwarmError, match=str(file)):
        swarm.connect("relay", cluster)
    assert ended(cluster) == (
        f"relay is ended; its run was {run}. If that was broken off, `swarm resume {run}` goes on with it, "
        "with --store where one was given"
    )


def test_a_swarm_whose_launch_failed_with_nobody_there_is_ended_by_its_name(
    cluster: str, file: Path, tmp_path: Path
) -> None:
    """While it is being launched it says so, then why it could not be; ended, its name is free again."""
    (tmp_path / "work.py").write_text(FAILS_LATE.replace("GATE", str(tmp_path / "gate")))
    command = [sys.executable, "-c", STARTS, str(file), cluster, str(tmp_path / "s.db")]
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert "is still being launched" in refusal(cluster, unlike="no detached swarm")
    finally:
        program.kill()
        program.wait()
    (tmp_path / "gate").touch()
    why = refusal(cluster, unlike="is still being launched")
    assert "could not be launched" in why and "not today" in why
    assert ended(cluster).endswith("relay is ended; it was not up, so it had no run")


def test_a_swarm_that_cannot_close_is_ended_all_the_same(
    cluster: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it said is logged, and its name is free again."""

    class Sticks(DispatcherActor):
        async def close(self) -> None:
            raise OSError("the disk is full")

    monkeypatch.setattr(detached, "DispatcherActor", Sticks)
    running = swarm.launch(file, address=cluster, detach=True, store=tmp_path / "s.db")
    with capture_logs() as logs:
        running.shut_down()
    assert ["the disk is full" in line["cause"] for line in logs if line["event"] == "swarm.not_closed"] == [True]
    with pytest.raises(LaunchError, match="no detached swarm 'relay'"):
        swarm.connect("relay", cluster)


def test_ending_a_swarm_sets_up_logs_where_nobody_has(cluster: str) -> None:
    """As launching one and connecting to one do."""
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.reset_defaults()
    try:
        with pytest.raises(LaunchError, match="no detached swarm"):
            end_swarm("nobody", cluster)
        assert structlog.is_configured()
    finally:
        structlog.reset_defaults()
        if before is not None:
            structlog.configure(**before)


def test_a_stream_from_afar_tells_what_one_in_this_process_tells(relay: swarm.Swarm, file: Path) -> None:
    """The same events in the same order, of a task that is done and of one that fails."""
    with swarm.launch(file, runtime="in-process", store=":memory:") as attached:
        for item in ("0", "nonsense"):
            assert asyncio.run(told(relay, item)) == asyncio.run(told(attached, item))


def test_events_are_told_while_the_task_goes_on(relay: swarm.Swarm, tmp_path: Path) -> None:
    """What a step waits for may be done by whoever hears that it was asked."""

    async def opens() -> object:
        async for event in relay.stream({"item": str(tmp_path / "gate")}):
            if isinstance(event, StepAsked):
                (tmp_path / "gate").touch()
        assert isinstance(event, TaskFinished)
        return event.result.output

    assert asyncio.run(opens()) == {"work": {"said": "it came"}}


def test_events_of_a_large_item_are_told_while_its_task_goes_on(relay: swarm.Swarm, tmp_path: Path) -> None:
    """Its bytes come later than the call that listens to it, about every other time."""

    async def opens(gate: str) -> object:
        async for event in relay.stream({"item": str(tmp_path / gate), "page": "x" * 2_000_000}):
            if isinstance(event, StepAsked):
                (tmp_path / gate).touch()
        assert isinstance(event, TaskFinished)
        return event.result.output

    for n in range(8):
        assert asyncio.run(opens(f"gate-{n}")) == {"work": {"said": "it came"}}


def test_a_task_that_is_refused_over_there_ends_its_stream(relay: swarm.Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never begins, so nothing is ever told of it; the error is, and the next task is answered."""
    monkeypatch.setattr(detached, "REST_S", 0.5)

    async def refused() -> None:
        async with asyncio.timeout(60):
            await told(relay, [0] * 4_100_000)

    with pytest.raises(WireError, match="more than 4,000,000 values"):
        asyncio.run(refused())
    assert asyncio.run(told(relay, "0"))[-1][1] == "done"


def test_no_event_is_lost_with_fifty_listeners(relay: swarm.Swarm) -> None:
    """Each of fifty streams at once tells all of its own task, in order."""

    async def all_of_them() -> list[list[tuple[str, ...]]]:
        return await asyncio.gather(*(told(relay, "0") for _ in range(50)))

    for seen in asyncio.run(all_of_them()):
        assert [kind for kind, *_ in seen] == TOLD


def test_leaving_a_stream_cancels_its_task_over_there(relay: swarm.Swarm, tmp_path: Path) -> None:
    """Nothing of it is worked on any more, and the swarm answers the next one."""

    async def leaves() -> None:
        stream = relay.stream({"item": str(tmp_path / "never")})
        async for event in stream:
            if isinstance(event, StepAsked):
                break
        await stream.aclose()

    asyncio.run(leaves())
    deadline = time.monotonic() + 20
    while relay.receipt().tasks != {"cancelled": 1} and time.monotonic() < deadline:
        time.sleep(0.1)
    assert relay.receipt().tasks == {"cancelled": 1}
    assert asyncio.run(told(relay, "0"))[-1][1] == "done"


def test_stopping_the_tasks_ends_a_stream_as_it_does_in_this_process(relay: swarm.Swarm, tmp_path: Path) -> None:
    """Whoever waits for a task that another one stops is cancelled, listener or not."""

    async def stopped() -> list[object]:
        item = str(tmp_path / "never")
        waiting = [asyncio.ensure_future(told(relay, item)), asyncio.ensure_future(relay.run({"item": item}))]
        async for event in relay.stream({"item": "0"}):
            assert event is not None  # once it is over, those before it have begun
        await asyncio.to_thread(relay.stop_tasks)
        return list(await asyncio.gather(*waiting, return_exceptions=True))

    assert [type(end) for end in asyncio.run(stopped())] == [asyncio.CancelledError] * 2


def test_a_listener_that_stands_still_holds_up_nobody(relay: swarm.Swarm, cluster: str, tmp_path: Path) -> None:
    """Its task ends, others are answered, and it hears the rest when it goes on."""
    gate = tmp_path / "gate"
    program = subprocess.Popen([sys.executable, "-c", LISTENS, cluster, str(gate)], stdout=subprocess.PIPE)
    try:
        assert program.stdout is not None
        heard = [program.stdout.readline().decode().strip() for _ in range(2)]
        program.send_signal(signal.SIGSTOP)
        gate.touch()

        async def meanwhile() -> None:
            async with asyncio.timeout(60):
                for _ in range(20):
                    assert [kind for kind, *_ in await told(relay, "0.1")] == TOLD

        asyncio.run(meanwhile())
        assert relay.receipt().tasks == {"done": 21}
        program.send_signal(signal.SIGCONT)
        assert heard + program.communicate(timeout=60)[0].decode().split() == TOLD
    finally:
        program.kill()
        program.wait()
