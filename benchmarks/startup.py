"""How long `import swarm` takes, and the first result of `swarm run --runtime in-process` on a warm machine.

python benchmarks/startup.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "configs"
ROUNDS = 5


def seconds(command: list[str], stdin: bytes | None = None) -> float:
    started = time.perf_counter()
    subprocess.run(command, input=stdin, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def first_result(store: Path) -> float:
    """From the command to its first line of output, with two messages' worth of input and the pipe left open."""
    command = [str(Path(sys.executable).with_name("swarm")), "run", str(CONFIGS / "triage.yaml")]
    process = subprocess.Popen(
        [*command, "--runtime", "in-process", "--store", str(store)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    started = time.perf_counter()
    process.stdin.write(json.dumps({"text": "My card was stolen, please block it now!"}).encode() + b"\n")
    process.stdin.flush()
    line = process.stdout.readline()
    took = time.perf_counter() - started
    assert b'"status"' in line, line
    process.stdin.close()
    process.wait(timeout=60)
    return took


def main() -> None:
    bare = [seconds([sys.executable, "-c", "pass"]) for _ in range(ROUNDS)]
    imported = [seconds([sys.executable, "-c", "import swarm"]) for _ in range(ROUNDS)]
    own = statistics.median(imported) - statistics.median(bare)
    print(f"import swarm: {1000 * own:.0f} ms (median of {ROUNDS}, the interpreter's own start taken off)")
    with tempfile.TemporaryDirectory() as folder:
        first_result(Path(folder) / "store.db")  # fits the heads where nobody has before
        took = [first_result(Path(folder) / "store.db") for _ in range(ROUNDS)]
    print(f"first result of swarm run --runtime in-process: {statistics.median(took):.2f} s (median of {ROUNDS})")


if __name__ == "__main__":
    main()
