"""Fixtures with models for tests that run the real thing, for the conftest of each folder that has such tests.

A pulled model is what `swarm models pull` has put on this machine; a test that needs another one is skipped.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import llama_cpp
import pytest
from tiny_gguf import write_tiny_model


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


def unpack(packed: str, folder: Path) -> str:
    """Path of the same model with its weights as 32-bit numbers, written into `folder`."""
    path = str(folder / "unpacked.gguf")
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.allow_requantize = llama_cpp.LLAMA_FTYPE_ALL_F32, True
    assert llama_cpp.llama_model_quantize(packed.encode(), path.encode(), ctypes.byref(parameters)) == 0
    return path
