"""A PostgreSQL server of the distribution's binaries in a folder of its own, for the tests that use one.

It runs as the user `postgres` when we are root, as the server refuses to be root's. Nothing of it is meant to last, so
it does not wait for the disk.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

PASSWORD = "n0t/in:any@message"
_START_S = 60.0


def binaries() -> Path | None:
    """Where the newest server's programs are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


class Server:
    """Started when made."""

    def __init__(self, programs: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="swarm-pg-"))  # short, as the path of a socket must be
        self._programs = programs
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
            self._as = {"user": "postgres", "group": "postgres", "extra_groups": []}
        self._schemas = count()
        self.port = _free_port()
        self._make()
        self.process = self.start()

    def _make(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        options = [
            "-U",
            "swarm",
            "-A",
            "scram-sha-256",
            "--pwfile",
            str(secret),
            "-E",
            "UTF8",
            "--locale",
            "C",
            "--no-sync",
        ]
        command = [str(self._programs / "initdb"), "-D", str(self.folder / "data"), *options]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **self._as)

    def start(self) -> subprocess.Popen[bytes]:
        settings = {
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "full_page_writes": "off",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        with (self.folder / "log").open("ab") as log:
            command = [str(self._programs / "postgres"), "-D", str(self.folder / "data"), *options]
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self._as)
        until = time.monotonic() + _START_S
        while True:
            try:
                psycopg.connect(self.url()).close()
                return process
            except psycopg.OperationalError:
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.05)

    def url(self, schema: str = "public") -> str:
        options = quote(f"-csearch_path={schema}")
        return f"postgresql://swarm:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/postgres?options={options}"

    def new(self) -> str:
        """The address of a schema in which there is nothing yet."""
        schema = f"t{next(self._schemas)}"
        self.execute(f"CREATE SCHEMA {schema}")
        return self.url(schema)

    def execute(self, command: str, url: str | None = None) -> list[tuple[Any, ...]]:
        with psycopg.connect(url or self.url(), autocommit=True) as db:
            done = db.execute(command.encode())
            return done.fetchall() if done.description else []

    def kill(self) -> None:
        """As when the power fails, but for what the disk would have lost."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def running() -> Iterator[Server]:
    """A server of one's own, for a fixture to yield from; skips where there is none to be had."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not on this machine; `apt-get install postgresql` brings it")
    server = Server(programs)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    yield from running()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
