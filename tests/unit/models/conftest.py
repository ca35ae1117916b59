"""A hub on this machine, a folder of wheels, and registries that name them."""

from __future__ import annotations

import hashlib
import os
import random
import re
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"

PULL = """
import sys
from pathlib import Path
from swarm.errors import SwarmError
from swarm.models.pull import PullSettings
from swarm.models.registry import Registry
from swarm.models.store import ModelStore

home, registry, name, limit = sys.argv[1:]
if limit != "none":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
store = ModelStore(Path(home), Registry.load([Path(registry)]))
note = lambda text: print("note:", text, flush=True)
progress = lambda p: print("progress:", p.done_bytes, p.total_bytes, flush=True)
try:
    print("weights:", store.pull(name, PullSettings(progress, note)).weights, flush=True)
except SwarmError as e:
    print(type(e).__name__ + ":", e, flush=True)
    sys.exit(3)
"""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.fixture
def gguf() -> Callable[[int], bytes]:
    """Makes bytes with the header of a GGUF file, always the same for a size."""
    return lambda size: struct.pack("<4sIQQ", b"GGUF", 3, 1, 1) + random.Random(size).randbytes(size - 24)


@dataclass
class Hub:
    """Speaks the part of the Hub's protocol that a download needs, and counts what it gave.

    A stored file sends `stall_after` bytes and then waits for `go_on`, which a test sets.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    lfs: bool = True
    token: str | None = None  # asked for by the hub itself, as of a gated repository
    blob_tokens: list[str | None] = field(default_factory=list)  # what the host of the blobs was shown
    ignores_ranges: bool = False
    stall_after: int | None = None
    go_on: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)
    ranges: list[str | None] = field(default_factory=list)
    bytes_sent: int = 0
    url: str = ""
    blob_url: str = ""  # another host name, as the real hub keeps its blobs elsewhere

    def send(self, request: BaseHTTPRequestHandler, data: bytes) -> None:
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        self.blob_tokens.append(request.headers.get("Authorization"))
        start = 0
        if asked and not self.ignores_ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])  # type: ignore[index]
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            request.send_response(200)
        request.send_header("Content-Length", str(len(data) - start))
        request.end_headers()
        cut = len(data) if self.stall_after is None else max(start, self.stall_after)
        self._write(request, data[start:cut])
        if cut < len(data):
            self.stalled.set()
            self.go_on.wait(60)
            self._write(request, data[cut:])

    def _write(self, request: BaseHTTPRequestHandler, data: bytes) -> None:
        for i in range(0, len(data), 65536):
            request.wfile.write(data[i : i + 65536])
            self.bytes_sent += len(data[i : i + 65536])


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _found(self, blob: bool = False) -> bytes | None:
            if hub.token and not blob and self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self._refuse(403, "GatedRepo")
            match = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([\w.-]+)/(.+)", self.path)
            if match and (data := hub.files.get(f"{match[1]}/{match[3]}")) is not None:
                return data
            return self._refuse(404, "EntryNotFound")

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _meta(self, data: bytes) -> None:
            self.send_header("X-Repo-Commit", COMMIT)
            if hub.lfs:
                self.send_header("X-Linked-Etag", f'"{sha256(data)}"')
                self.send_header("X-Linked-Size", str(len(data)))
                self.send_header("Location", f"{hub.blob_url}/blob{self.path}")
            else:
                self.send_header("ETag", f'"{git_sha(data)}"')

        def do_HEAD(self) -> None:
            if (data := self._found()) is not None:
                self.send_response(302 if hub.lfs else 200)
                self._meta(data)
                self.send_header("Content-Length", "0" if hub.lfs else str(len(data)))
                self.end_headers()

        def do_GET(self) -> None:
            try:
                if self.path.startswith("/blob/"):
                    self.path = self.path.removeprefix("/blob")
                    if (data := self._found(blob=True)) is not None:
                        hub.send(self, data)
                elif (data := self._found()) is not None and hub.lfs:
                    self.send_response(302)
                    self._meta(data)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                elif data is not None:
                    hub.send(self, data)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    return Handler


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running hub; `HF_ENDPOINT` points to it, here and in child processes, and no token is found."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.blob_url = f"http://localhost:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield hub
    hub.go_on.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, bytes]], Path]:
    """Makes wheels of version 1.0 in a folder that is the only place where pip may look."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def make(dist: str, files: dict[str, bytes]) -> Path:
        path = folder / f"{dist}-1.0-py3-none-any.whl"
        info = f"{dist}-1.0.dist-info"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        return path

    return make


@pytest.fixture
def registry(tmp_path: Path) -> Callable[..., Path]:
    """Writes a models.yaml with one model `m` whose single file `m.gguf` has these sources, size and hash."""

    def write(*sources: Any, data: bytes | None = None, **more: Any) -> Path:
        file: dict[str, Any] = {"name": "m.gguf", "sources": list(sources)}
        if data is not None:
            file |= {"size": len(data), "sha256": sha256(data)}
        model = {"description": "d", "kind": "gguf", "family": "f", "licence": {"name": "MIT"}}
        model |= {"chat_format": "plain", "context": 2048, "files": [file], **more}
        path = tmp_path / "models.yaml"
        path.write_text(yaml.safe_dump({"schema": "models/v1", "models": {"m": model}}))
        return path

    return write


@pytest.fixture
def puller(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process that pulls `m` into `tmp_path/home`, with a largest file size if one is given."""
    started: list[subprocess.Popen[str]] = []

    def start(registry: Path, largest: int | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PULL, str(tmp_path / "home"), str(registry), "m", str(largest or "none")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
