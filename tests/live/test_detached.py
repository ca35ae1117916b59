"""A dispatcher that outlives the program that started it, on a real cluster."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import swarm
from swarm.errors import LaunchError

SWARM = """\
schema: swarm/v1
name: relay
specialists:
  work: {kind: tool, tools: work.py, input: [item], output_schema: {type: object, required: [said]}}
steps: {work: {specialist: work, input: {item: "${input.item}"}}}
runtime: {kind: ray, max_in_flight: 4}
"""
TOOLS = """\
import time

def run(item):
    time.sleep(float(item))
    return {"said": f"slept {item}"}
"""
STARTS = """\
import sys, swarm
s = swarm.launch(sys.argv[1], address=sys.argv[2], detach="relay", store=sys.argv[3])
print(s.run_id, flush=True)
s.run_sync({"item": "2"})
"""


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
    first = swarm.launch(file, address=cluster, detach=True, store=tmp_path / "s.db")
    try:
        with pytest.raises(LaunchError, match="'relay' is running already"):
            swarm.launch(file, address=cluster, detach=True, store=tmp_path / "t.db")
        with pytest.raises(swarm.SwarmError, match="not in the store"):
            first.resume_sync("r-0")
        assert first.run_sync({"item": "0"}).status == "done"
    finally:
        first.shut_down()
