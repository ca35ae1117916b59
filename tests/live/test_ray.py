"""Real Ray: two raylets started as a user starts them, hosts on both, and a host killed at work."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

import swarm
from protocols.tasks import Result
from swarm.models.store import ModelStore

SWARM = """\
schema: swarm/v1
name: two-hosts
models: {head: all-MiniLM-L6-v2}
specialists:
  intent: {pack: intent, tiers: [head, person]}
  fields: {pack: fields, tiers: [code]}
  route: {pack: route}
steps:
  intent: {specialist: intent, input: {text: "${input.text}"}, accept_at: 0.0}
  fields: {specialist: fields, input: {text: "${input.text}"}, accept_at: 0.0}
  route: {specialist: route, input: {intent: "${intent.label}", urgency: normal, fields: "${fields}"}}
runtime: {kind: ray, hosts: 2, cpus: 1, max_in_flight: 16}
"""


@pytest.fixture(scope="module")
def swarm_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if ModelStore().state("all-MiniLM-L6-v2") != "here":
        pytest.skip("all-MiniLM-L6-v2 is not on this machine; run `swarm models pull all-MiniLM-L6-v2`")
    path = tmp_path_factory.mktemp("swarm") / "two-hosts.yaml"
    path.write_text(SWARM)
    return path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster of two raylets with one CPU each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = str(Path(sys.executable).with_name("ray"))
    # a short path: the sockets below it must fit 107 characters
    folder = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / f"swarmlet-{os.getpid()}"
    common = [command, "start", "--block", "--num-cpus=1", "--disable-usage-stats", "--object-store-memory=100000000"]
    head = _started([*common, "--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"])
    _wait_for_port(port)
    second = _started([*common, f"--address=127.0.0.1:{port}"])
    yield f"127.0.0.1:{port}"
    for process in (second, head):
        process.send_signal(signal.SIGTERM)
    for process in (second, head):
        process.wait(timeout=30)


def items(n: int) -> list[dict[str, str]]:
    return [{"text": f"Where is order AB-{100000 + i}? I paid 49.{i % 90 + 10} EUR on 3 March."} for i in range(n)]


async def answers(running: swarm.Swarm, n: int) -> list[Result]:
    return [result async for result in running.map(items(n))]


def test_a_laptop_is_a_cluster_of_one(swarm_file: Path) -> None:
    """Without an address Ray is started on this machine, and nothing of it is left when the swarm is closed."""
    with swarm.launch(swarm_file, runtime="ray", store=":memory:") as running:
        pids = [ready.pid for ready in running.hosts().values()]
        assert running.run_sync(items(1)[0]).status == "done"
    assert not ray.is_initialized()
    assert not any(_alive(pid) for pid in pids)


def test_closing_one_swarm_leaves_another_of_the_same_cluster_alone(cluster: str, swarm_file: Path) -> None:
    """Two swarms share a process's connection to Ray; it ends with the last of them."""
    small = swarm_file.with_name("one-host.yaml")
    small.write_text(SWARM.replace("hosts: 2", "hosts: 1"))
    with swarm.launch(small, address=cluster, store=":memory:") as stays:
        with swarm.launch(small, address=cluster, store=":memory:") as goes:
            assert goes.run_sync(items(1)[0]).status == "done"
        assert ray.is_initialized()
        assert stays.run_sync(items(1)[0]).status == "done"
    assert not ray.is_initialized()


def test_hosts_on_both_nodes_take_work(cluster: str, swarm_file: Path) -> None:
    """A swarm of two hosts on a cluster of two nodes works on both, and the receipt shows it."""
    with swarm.launch(swarm_file, address=cluster, store=":memory:") as running:
        results = asyncio.run(answers(running, 60))
        receipt = running.receipt()
        hosts = running.hosts()
    assert [r.status for r in results] == ["done"] * 60
    assert set(receipt.hosts) == {"host-0", "host-1"}
    assert min(receipt.hosts.values()) >= 20
    assert len({ready.node for ready in hosts.values()}) == 2
    assert len({ready.pid for ready in hosts.values()} | {os.getpid()}) == 3


def test_a_host_killed_at_work_loses_and_doubles_nothing(cluster: str, swarm_file: Path) -> None:
    """SIGKILL of a host in the middle: every item is answered once, rightly, and no attempt is journalled twice."""
    n = 300

    async def killed_midway(running: swarm.Swarm) -> list[Result]:
        results = []
        victim = running.hosts()["host-1"].pid
        async for result in running.map(items(n)):
            results.append(result)
            if len(results) == 40:
                os.kill(victim, signal.SIGKILL)
        return results

    with swarm.launch(swarm_file, address=cluster, store=":memory:") as running:
        before = running.hosts()["host-1"].pid
        results = asyncio.run(killed_midway(running))
        statistics = running.statistics()
        receipt = running.receipt()
        assert running.hosts()["host-1"].pid != before
    assert [r.position for r in results] == list(range(n))
    assert Counter(r.status for r in results) == {"done": n}
    assert [r.output["fields"]["order_number"] for r in results] == [f"AB-{100000 + i}" for i in range(n)]
    assert statistics.restarts == 1
    assert not statistics.dead_letters
    assert sum(receipt.tasks.values()) == n
    assert {(line.step, line.asked, line.accepted) for line in receipt.tiers} == {
        ("intent", n, n), ("fields", n, n), ("route", n, n),
    }  # fmt: skip


def test_a_host_that_fits_nowhere_is_a_clear_error(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More CPUs a host than any node has: one sentence with what is free and what to lower."""
    monkeypatch.setattr("swarm.runtime.on_ray.PLACEMENT_TIMEOUT_S", 3.0)
    path = tmp_path / "large.yaml"
    path.write_text(SWARM.replace("cpus: 1", "cpus: 3"))
    with pytest.raises(swarm.errors.LaunchError, match=r"no node with 3 CPUs.*lower runtime\.hosts, cpus or memory"):
        swarm.launch(path, address=cluster, store=":memory:")


def _alive(pid: int) -> bool:
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    return True


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait_for_port(port: int) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("ray start --head did not open its port within 60 s")
