"""The remote tier against a real OpenAI-compatible server: llama.cpp's own, with a small model, on this machine."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import swarm

KEY = "sk-local-0123456789"
START_S = 60.0
FILE = """
schema: swarm/v1
name: desk
models:
  remote:
    model: gemma-3-270m
    base_url: {url}
    api_key: ${{env:DESK_KEY}}
    price: {{input: 1, output: 2}}
specialists:
  topic:
    kind: classify
    instructions: Say what the message is about.
    labels: {{parcel: about a delivery, money: about a payment}}
    examples:
      parcel: [My parcel is late]
      money: [I was charged twice]
    max_tokens: 24
    tiers: [remote]
  order:
    kind: extract
    instructions: Copy the order number, or null when there is none.
    output_schema:
      type: object
      properties: {{order: {{enum: [A-1, A-2, null]}}, urgent: {{type: boolean}}}}
      required: [order, urgent]
      additionalProperties: false
    examples:
      - {{input: {{text: Where is A-1?}}, output: {{order: A-1, urgent: false}}}}
      - {{input: {{text: Hello!}}, output: {{order: null, urgent: false}}}}
    max_tokens: 40
    tiers: [remote]
steps:
  topic: {{specialist: topic, input: {{text: "${{input.text}}"}}}}
  order: {{specialist: order, input: {{text: "${{input.text}}"}}}}
budget:
  task: {{usd: {usd}, seconds: 60}}
cache: off
"""
ITEM = {"text": "My parcel A-2 has not come, and I need it today!"}


@dataclass
class Recorder:
    """Passes everything on to the server, and keeps what went through."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    usage: list[tuple[int, int]] = field(default_factory=list)  # as the server reported it, of completed calls


@pytest.fixture(scope="module")
def server_port(gemma_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The server, ready to answer, on one thread."""
    port = _free_port()
    command = [sys.executable, "-m", "llama_cpp.server", "--model", gemma_path, "--port", str(port), "--n_ctx", "2048",
               "--host", "127.0.0.1", "--n_threads", "1", "--n_threads_batch", "1", "--chat_format", "gemma",
               "--api_key", KEY, "--verbose", "False"]  # fmt: skip
    said = tmp_path_factory.mktemp("server") / "said.txt"
    with said.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=_without_proxies())
    try:
        _wait_until_ready(process, port, said)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def recorder(server_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    monkeypatch.setenv("DESK_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with _recording(server_port) as recorder:
        yield recorder


@contextmanager
def launched(folder: Path, url: str, usd: str = "0.01") -> Iterator[swarm.Swarm]:
    path = folder / "desk.yaml"
    path.write_text(FILE.format(url=url, usd=usd))
    with swarm.launch(path, runtime="in-process", store=":memory:") as desk:
        yield desk


def test_answers_are_right_in_form_and_cost_what_the_server_reports(tmp_path: Path, recorder: Recorder) -> None:
    """Both kinds are answered within their schemas; tokens and money are the server's own counts times the price."""
    with launched(tmp_path, recorder.url) as desk:
        result = desk.run_sync(ITEM)
        receipt = desk.receipt()
    assert result.status == "done", result.reason
    assert result.output["topic"]["label"] in ("parcel", "money")
    assert result.output["order"]["order"] in ("A-1", "A-2", None)
    assert isinstance(result.output["order"]["urgent"], bool)

    lines = sorted((line.tokens_in, line.tokens_out, line.micro_usd) for line in receipt.tiers)
    assert lines == sorted((read, written, read + 2 * written) for read, written in recorder.usage)
    assert receipt.spent.micro_usd == result.cost.micro_usd == sum(micro_usd for _, _, micro_usd in lines) > 0


def test_server_without_json_schema_is_found_out_once(tmp_path: Path, recorder: Recorder) -> None:
    """llama.cpp's server takes a schema in its own way only: each specialist learns that in its first call."""
    with launched(tmp_path, recorder.url) as desk:
        desk.run_sync(ITEM)
        first = len(recorder.asked)
        desk.run_sync(ITEM)
    assert first == 4 and len(recorder.usage) == 4
    assert [asked["response_format"]["type"] for asked in recorder.asked[first:]] == ["json_object"] * 2


def test_tokens_stay_within_what_was_held(tmp_path: Path, recorder: Recorder) -> None:
    """A hold made from bytes bounds what the server's own tokeniser counts, in any script."""
    with launched(tmp_path, recorder.url) as desk:
        for text in ("我的包裹还没有到，请尽快处理。", "🎁📦🚚" * 6, "\x00\u202e" * 12):
            result = desk.run_sync({"text": text})
            assert result.status == "done", result.reason
            holds = {why.step: why.hold for why in result.why if why.hold is not None}
            assert len(holds) == 2
            assert result.cost.tokens <= sum(hold.tokens for hold in holds.values())
            assert result.cost.micro_usd <= sum(hold.micro_usd for hold in holds.values())


def test_without_the_key_the_tier_is_missed(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its key the tier is unavailable: nothing is sent, and the receipt says what it would have got."""
    monkeypatch.delenv("DESK_KEY")
    with launched(tmp_path, recorder.url) as desk:
        result = desk.run_sync(ITEM)
        receipt = desk.receipt()
    assert result.status == "failed" and not recorder.asked
    (missed,) = receipt.missed
    assert (missed.tier, missed.asks) == ("remote", 2) and "DESK_KEY" in missed.reason
    assert missed.micro_usd is not None and missed.micro_usd > 0
    assert receipt.spent.micro_usd == 0


def test_wrong_key_is_refused_and_costs_nothing(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server refuses another key: the step fails with its status, nothing is charged."""
    monkeypatch.setenv("DESK_KEY", "sk-wrong-0123456789")
    with launched(tmp_path, recorder.url) as desk:
        result = desk.run_sync(ITEM)
        receipt = desk.receipt()
    assert result.status == "failed" and "status 401" in (result.reason or "")
    assert recorder.asked and not recorder.usage and receipt.spent.micro_usd == 0


def test_budget_below_the_hold_sends_nothing(tmp_path: Path, recorder: Recorder) -> None:
    """A budget that does not cover a call refuses it before anything is sent."""
    with launched(tmp_path, recorder.url, usd="0.000010") as desk:
        result = desk.run_sync(ITEM)
    assert result.status == "budget_exhausted" and "budget.task.usd" in (result.reason or "")
    assert not recorder.asked


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _without_proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, said: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            pytest.fail(f"the server ended: {said.read_text(errors='replace')[-2000:]}")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {KEY}"})
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the server was not ready after {START_S} s")


@contextmanager
def _recording(port: int) -> Iterator[Recorder]:
    recorder = Recorder()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            recorder.asked.append(json.loads(body))
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            passed = {name: self.headers[name] for name in ("content-type", "authorization")}
            connection.request("POST", self.path, body, passed)
            answer = connection.getresponse()
            told = answer.read()
            if answer.status == 200:
                usage = json.loads(told)["usage"]
                recorder.usage.append((usage["prompt_tokens"], usage["completion_tokens"]))
            self.send_response(answer.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    recorder.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield recorder
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
