"""Real models for the live tests: what `swarm models pull` has put on this machine, or the test is skipped."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest
from tiny_gguf import write_tiny_model

# Ray's nodes and drivers agree on a token of these tests' own; set before anything imports ray.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _pulled(name: str, pattern: str) -> str:
    home = Path(os.environ.get("SWARMLET_HOME") or Path.home() / ".cache" / "swarmlet")
    found = sorted((home / "models" / name).glob(pattern))
    if not found:
        pytest.skip(f"model {name} is not on this machine; pull it with `swarm models pull {name}`")
    return str(found[-1])


@pytest.fixture(scope="session")
def smollm2_path() -> str:
    """SmolLM2-135M-Instruct, the fastest file that is there."""
    return _pulled("smollm2-135m-instruct", "*.gguf")


@pytest.fixture(scope="session")
def gemma_path() -> str:
    """Gemma 3 270M."""
    return _pulled("gemma-3-270m", "*.gguf")


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of half a megabyte that writes nonsense, for what does not depend on the answers."""
    return str(write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf"))
