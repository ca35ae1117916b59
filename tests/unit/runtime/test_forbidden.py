"""Unit tests cannot reach the real thing, not even by accident."""

from __future__ import annotations

import importlib
import os
import socket
import sys
from pathlib import Path

import llama_cpp
import pytest


@pytest.mark.skipif("ray" in sys.modules, reason="a live test has imported it in this process")
def test_ray_cannot_be_imported() -> None:
    """Importing Ray is refused, also through the module that wraps it."""
    for module in ("ray", "swarm.runtime.on_ray"):
        with pytest.raises(RuntimeError, match="import ray"):
            importlib.import_module(module)


def test_no_language_model_can_be_opened(tmp_path: Path) -> None:
    """Loading a model file is refused before the library sees it."""
    with pytest.raises(RuntimeError, match="open a language model"):
        llama_cpp.llama_model_load_from_file(str(tmp_path).encode(), llama_cpp.llama_model_default_params())


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "example.com"])
def test_nothing_beyond_this_machine_can_be_reached(host: str) -> None:
    """A connection or look-up that would leave this machine is refused."""
    with pytest.raises(RuntimeError, match=host):
        socket.create_connection((host, 9), timeout=1)


def test_this_machine_can_be_reached() -> None:
    """Servers that a test starts itself are fine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=10).close()


def test_each_test_has_an_empty_home() -> None:
    """Nothing of the user's cache is read or written."""
    assert list(Path(os.environ["SWARMLET_HOME"]).iterdir()) == []
