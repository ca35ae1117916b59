"""A provider of paid answers on this machine that behaves as badly as it is told to."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Seen:
    """One request as it came in."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    at: float = field(default_factory=time.monotonic)

    @property
    def format(self) -> str:
        """How JSON was asked for."""
        match self.body.get("response_format"):
            case {"type": "json_object", "schema": _}:
                return "json_object+schema"
            case {"type": str(kind)}:
                return kind
            case _:
                return "none"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        provider = self.server.provider
        seen = Seen(self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(body))
        with provider.lock:
            provider.seen.append(seen)
            act = provider.acts.pop(0) if len(provider.acts) > 1 else provider.acts[0]
        provider.asked.set()
        try:
            act(self, seen)
        except (BrokenPipeError, ConnectionResetError):
            provider.hung_up.set()

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    provider: Provider

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what these tests are about."""


Act = Callable[[Handler, Seen], None]


@dataclass
class Provider:
    """Does `acts` one after the other, the last of them for ever; `seen` is what it was asked."""

    acts: list[Act]
    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    sent_bytes: int = 0
    asked: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)  # ends all that hangs
    hung_up: threading.Event = field(default_factory=threading.Event)  # a client went away
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def provider(*acts: Act) -> Iterator[Provider]:
    server = Server(("127.0.0.1", 0), Handler)
    server.provider = Provider(list(acts), f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.provider
    finally:
        server.provider.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


# --- what a provider may do


def completion(content: Any, tokens_in: Any = 100, tokens_out: Any = 10) -> bytes:
    """A body as OpenAI sends it."""
    usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": 0}
    choices = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}]
    return json.dumps({"id": "c-1", "object": "chat.completion", "choices": choices, "usage": usage}).encode()


def says(content: Any, tokens_in: Any = 100, tokens_out: Any = 10) -> Act:
    return sends(completion(content, tokens_in, tokens_out))


def sends(body: bytes, status: int = 200, **headers: str) -> Act:
    return lambda handler, _: handler.send(status, body, **headers)


def refuses(status: int, message: str = "no", **headers: str) -> Act:
    return sends(json.dumps({"error": {"message": message, "type": "x", "code": None}}).encode(), status, **headers)


def takes_only(wanted: str, then: Act, status: int = 400) -> Act:
    """Refuses what is asked for in another format than `wanted`."""

    def act(handler: Handler, seen: Seen) -> None:
        (then if seen.format == wanted else refuses(status, "no such response_format"))(handler, seen)

    return act


def hangs(handler: Handler, _: Seen) -> None:
    """Says nothing until it is released or the client goes away."""
    provider = handler.server.provider
    handler.connection.settimeout(0.01)
    while not provider.released.is_set():
        try:
            if handler.connection.recv(1) == b"":
                provider.hung_up.set()
                break
        except TimeoutError:
            continue
    handler.close_connection = True


def cuts(handler: Handler, _: Seen) -> None:
    """Promises a whole body and closes the connection in the middle of it."""
    body = completion("{}")
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def slams(handler: Handler, _: Seen) -> None:
    """Closes the connection without a word."""
    handler.close_connection = True


def floods(total: int, status: int = 200, chunked: bool = True) -> Act:
    """Sends `total` bytes, as fast as they are taken."""

    def act(handler: Handler, _: Seen) -> None:
        provider = handler.server.provider
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        if chunked:
            handler.send_header("transfer-encoding", "chunked")
        else:
            handler.send_header("content-length", str(total))
        handler.end_headers()
        handler.close_connection = True
        piece = b" " * 65_536
        while provider.sent_bytes < total:
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            provider.sent_bytes += len(piece)
        if chunked:
            handler.wfile.write(b"0\r\n\r\n")

    return act


def drips(of: str, every_s: float = 0.02) -> Act:
    """A byte now and then, for ever: of the `body`, of the `head`, or `informed`, as one more interim answer."""

    def act(handler: Handler, _: Seen) -> None:
        start = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        match of:
            case "body":
                handler.wfile.write(start + b"content-length: 1000000\r\n\r\n")
            case "head":
                handler.wfile.write(start + b"x-slow: ")
        while not handler.server.provider.released.wait(every_s):
            handler.wfile.write(b"HTTP/1.1 102 Processing\r\n\r\n" if of == "informed" else b" ")
        handler.close_connection = True

    return act


def heads(handler: Handler, _: Seen) -> None:
    """One header after the other, for as long as they are taken."""
    provider = handler.server.provider
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    handler.close_connection = True
    lines = b"x-more: and more\r\n" * 1000
    while provider.sent_bytes < 100_000_000:
        handler.wfile.write(lines)
        provider.sent_bytes += len(lines)


def crumbles(total: int) -> Act:
    """`total` bytes, each in a chunk of its own, as fast as they are taken."""

    def act(handler: Handler, _: Seen) -> None:
        provider = handler.server.provider
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        handler.close_connection = True
        while provider.sent_bytes < total:
            handler.wfile.write(b"1\r\n \r\n" * 1000)
            provider.sent_bytes += 1000
        handler.wfile.write(b"0\r\n\r\n")

    return act


def bomb(n_bytes: int) -> bytes:
    """A body of about `n_bytes` that is right and becomes as many small objects as can be."""
    usage = b'{"prompt_tokens": 5, "completion_tokens": 1}'
    return b'{"usage": %b, "choices": [%b[]]}' % (usage, b"[]," * (n_bytes // 3))
