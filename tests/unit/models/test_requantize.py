from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.engine.llama.quantize import requantize
from swarm.errors import ModelDamaged, ModelError


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    """A format that cannot be made is named together with those that can."""
    with pytest.raises(ModelError, match=r"'Q9'; formats: .*Q8_0"):
        requantize(tmp_path / "m.gguf", tmp_path / "out.gguf", "Q9")


def test_a_foreign_file_is_refused_before_a_process_starts(tmp_path: Path) -> None:
    """What is no GGUF file is `ModelDamaged`."""
    (tmp_path / "m.gguf").write_bytes(b"PK" * 100)
    with pytest.raises(ModelDamaged, match="no GGUF file"):
        requantize(tmp_path / "m.gguf", tmp_path / "out.gguf", "Q8_0")


def test_a_file_that_llama_cpp_cannot_read_leaves_nothing(tmp_path: Path, gguf: Callable[[int], bytes]) -> None:
    """A sound header over nonsense makes the library fail; the error says so and no file appears."""
    (tmp_path / "m.gguf").write_bytes(gguf(1000))
    with pytest.raises(ModelError, match=r"re-quantizing m\.gguf to Q8_0 failed"):
        requantize(tmp_path / "m.gguf", tmp_path / "out.gguf", "Q8_0")
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_a_native_crash_is_an_error_and_not_our_end(
    tmp_path: Path, gguf: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the child dies of a segmentation fault the caller gets an error that names the signal."""
    folder = tmp_path / "first_on_the_path"
    folder.mkdir()
    (folder / "llama_cpp.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.syspath_prepend(folder)
    (tmp_path / "m.gguf").write_bytes(gguf(1000))
    with pytest.raises(ModelError, match="crashed \\(SIGSEGV\\)"):
        requantize(tmp_path / "m.gguf", tmp_path / "out.gguf", "Q8_0")
    assert not list(tmp_path.glob("*out.gguf*"))
