"""What holds for all tests: unit and wire tests cannot reach the real thing, live tests are marked.

A unit or wire test that imports or starts Ray, opens a language model, or talks to anything beyond this machine fails
with `Forbidden`. Its `SWARMLET_HOME` is an empty folder of its own.
"""

from __future__ import annotations

import ipaddress
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent
GUARDED = (HERE / "unit", HERE / "wire")

settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


# A shell starts background jobs with SIGINT ignored, and children inherit that: those that tests interrupt must not.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Forbidden(RuntimeError):
    """A unit test reached for the real thing; use a fake of `swarm.testing`, or move it to tests/live."""


class _Guard:
    """Sees imports and audit events. An audit hook cannot be removed again, so it is switched."""

    on = False

    def find_spec(self, name: str, *_: object) -> None:
        if self.on and name == "ray":
            raise Forbidden("import ray")

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        match event, args:
            case "socket.connect", (_, (str(host), *_)) if not _is_here(host):
                raise Forbidden(f"connect to {host}")
            case "socket.getaddrinfo", (str(host), *_) if not _is_here(host):
                raise Forbidden(f"look up {host}")


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost")


guard = _Guard()
sys.addaudithook(guard)
sys.meta_path.insert(0, guard)


def _forbid(what: str) -> Any:
    def forbidden(*_: object, **__: object) -> None:
        raise Forbidden(what)

    return forbidden


@pytest.fixture(autouse=True)
def _only_fakes(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    if not any(request.path.is_relative_to(folder) for folder in GUARDED):
        yield
        return
    import llama_cpp

    monkeypatch.setenv("SWARMLET_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", _forbid("open a language model"))
    if "ray" in sys.modules:
        monkeypatch.setattr(sys.modules["ray"], "init", _forbid("start ray"))
    guard.on = True
    yield
    guard.on = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE / "live"):
            item.add_marker(pytest.mark.live)
