"""A Ray cluster of several raylets on this machine, started as a user starts them, which can be killed one by one."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from host_faults import Fault, Story

import swarm

RAY = str(Path(sys.executable).with_name("ray"))


class Node:
    """One `ray start`, which stays until it is stopped."""

    def __init__(self, *arguments: str) -> None:
        command = [RAY, "start", "--block", "--disable-usage-stats", "--object-store-memory=100000000", *arguments]
        self._said = TemporaryFile()  # noqa: SIM115 (it goes with the node)
        self._process = subprocess.Popen(command, stdout=self._said, stderr=subprocess.DEVNULL)

    def wait(self) -> None:
        """Until it is up."""
        for _ in range(600):
            if b"Ray runtime started" in os.pread(self._said.fileno(), 100_000, 0):
                return
            time.sleep(0.1)
        raise TimeoutError("ray start did not come up within 60 s")

    def kill(self) -> None:
        """SIGKILL for its raylet; the workers go with it."""
        for pid in _below(self._process.pid):
            if _name(pid) == "raylet":
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def closed(self) -> None:
        """Wait until it has ended."""
        self._process.wait(timeout=60)


class Raylets:
    """A head without CPUs, which the driver joins, and `n` nodes with one CPU each."""

    def __init__(self, n: int, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        head = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
        self._all = [Node("--num-cpus=0", *head)]
        self._all[0].wait()
        self.nodes: list[Node] = []
        for _ in range(n):  # one after the other: those that start together get into each other's way
            self.nodes.append(self._added())
            self.nodes[-1].wait()

    def replace(self, i: int) -> None:
        """Another node in the place of one that was killed; it comes up by itself."""
        self.nodes[i] = self._added()

    def close(self) -> None:
        for node in reversed(self._all):
            node.close()
        for node in self._all:
            node.closed()

    def _added(self) -> Node:
        self._all.append(Node("--num-cpus=1", f"--address={self.address}"))
        return self._all[-1]


@contextmanager
def raylets(n: int) -> Iterator[Raylets]:
    # a short path: the sockets below it must fit 107 characters
    folder = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / f"swarmlet-{os.getpid()}-{n}"
    cluster = Raylets(n, folder)
    try:
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)


def kill_raylets(cluster: Raylets, n: int, every_s: float, back_s: float, seed: int = 1) -> Fault:
    """SIGKILL for one of `n` raylets every so often; another takes its place after `back_s` seconds."""
    chance = random.Random(seed)

    async def fault(running: swarm.Swarm, story: Story) -> None:
        while True:
            await asyncio.sleep(every_s - back_s)
            i = chance.randrange(n)
            cluster.nodes[i].kill()
            story.faults.append(time.monotonic())
            await asyncio.sleep(back_s)
            cluster.replace(i)

    return fault


def _below(pid: int) -> list[int]:
    """The processes that this one has started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [found for child in map(int, children) for found in (child, *_below(child))]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
