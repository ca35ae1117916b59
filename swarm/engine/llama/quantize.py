"""Re-quantizing a GGUF file, in a process of its own so that a native crash cannot take the caller with it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

from swarm.engine.llama.environment import child_environment
from swarm.errors import ModelDamaged, ModelError
from swarm.models.gguf import read_header

# llama.h: enum llama_ftype
_FILE_TYPES = {
    "F16": 1,
    "Q4_0": 2,
    "Q8_0": 7,
    "Q5_0": 8,
    "Q4_K_M": 15,
    "Q5_K_M": 17,
    "Q6_K": 18,
    "IQ4_NL": 25,
    "BF16": 32,
}
_REASON_CHARS = 400


def requantize(src: Path, dst: Path, format: str, within_s: float | None = None) -> None:
    """Write the GGUF file `src` to `dst` in `format`; `dst` appears whole or not at all.

    A file that is quantized already loses a little more (Q4_1 to Q8_0 loses nothing that shows). Takes about one
    second for 100 MB. Raises `ModelError` for an unknown format or when llama.cpp fails, crashes, runs out of disk
    or takes longer than `within_s` seconds, `ModelDamaged` when `src` is no GGUF file.
    """
    if format not in _FILE_TYPES:
        raise ModelError(f"cannot re-quantize {src.name} to {format!r}; formats: {', '.join(_FILE_TYPES)}")
    read_header(src)
    partial = dst.with_name(f".{dst.name}.{os.getpid()}.partial")
    command = [sys.executable, "-m", __name__, str(src), str(partial), format]
    try:
        child = subprocess.run(
            command,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=within_s,
        )
        if child.returncode != 0:
            raise ModelError(f"re-quantizing {src.name} to {format} failed: {_reason(child)}")
        _sound(partial)
        os.replace(partial, dst)
    except subprocess.TimeoutExpired as e:
        raise ModelError(f"re-quantizing {src.name} to {format} took longer than {e.timeout:.0f} seconds") from None
    finally:
        partial.unlink(missing_ok=True)


def _sound(path: Path) -> None:
    try:
        read_header(path)
    except (ModelDamaged, FileNotFoundError) as e:
        raise ModelError(f"llama.cpp reported success but left no usable file: {e}") from e
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _reason(child: subprocess.CompletedProcess[bytes]) -> str:
    lines = child.stderr.decode(errors="replace").strip().splitlines()
    last = lines[-1][-_REASON_CHARS:] if lines else "nothing was said"
    if child.returncode < 0:
        return f"llama.cpp crashed ({signal.Signals(-child.returncode).name}); its last words: {last}"
    return last


def _quantize_here(src: str, dst: str, format: str) -> int:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = _FILE_TYPES[format]
    params.nthread = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    params.allow_requantize = True
    return int(llama_cpp.llama_model_quantize(src.encode(), dst.encode(), ctypes.byref(params)))


if __name__ == "__main__":
    sys.exit(1 if _quantize_here(*sys.argv[1:]) else 0)
