"""What a step and a task cost in CPU time when the engine does nothing, beside other frameworks doing the same.

    python benchmarks/overhead.py [--rounds 9] [--frameworks .venv-frameworks] [--only swarmlet,langgraph]

Each contestant is a process of its own, at work only in its turn; the turns alternate round by round. `make frameworks`
installs the others; where that has not been done, ours runs alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frameworks.turns import CHAINS, STEPS, TASKS
from peers.report import Report

HERE = Path(__file__).parent
LOADS = ("chain", "tasks")
# Nothing may leave the machine, and nothing is written down about the runs.
QUIET = {"LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false", "OTEL_SDK_DISABLED": "true"}


@dataclass(frozen=True)
class Kind:
    """How a contestant is started. `package`: whose version is told; `own`: in our environment."""

    name: str
    module: str
    package: str
    options: tuple[str, ...] = ()
    own: bool = False


KINDS = (
    Kind("swarmlet, ledger in memory", "swarmlet_work", "swarmlet", ("memory",), own=True),
    Kind("swarmlet, durable ledger", "swarmlet_work", "swarmlet", ("durable",), own=True),
    Kind("agent-framework-core, graph", "agent_framework_work", "agent-framework-core", ("graph",)),
    Kind("agent-framework-core, functional", "agent_framework_work", "agent-framework-core", ("functional",)),
    Kind("autogen-core", "autogen_work", "autogen-core"),
    Kind("langgraph", "langgraph_work", "langgraph"),
)


@dataclass
class Contestant:
    """A running child, and the seconds of CPU that each of its turns took for one unit."""

    kind: Kind
    version: str
    process: subprocess.Popen[str]
    unit_s: dict[str, list[float]] = field(default_factory=lambda: {load: [] for load in LOADS})

    @classmethod
    def start(cls, kind: Kind, python: Path) -> Contestant:
        command = [str(python), "-m", f"frameworks.{kind.module}", *kind.options]
        process = subprocess.Popen(
            command, cwd=HERE, env=os.environ | QUIET, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return cls(kind, _version(python, kind.package), process)

    def reply(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.kind.name} ended before its turn was over")
        found: dict[str, Any] = json.loads(line)
        return found

    def turn(self, load: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{load}\n")
        self.process.stdin.flush()
        spent = self.reply()
        self.unit_s[load].append(spent["cpu_s"] / spent["units"])

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


def compare(rounds: int, frameworks: Path, only: list[str]) -> list[Contestant]:
    """All contestants after that many turns each."""
    kinds = [kind for kind in KINDS if not only or any(kind.name.startswith(name) for name in only)]
    if not (frameworks / "bin" / "python").exists():
        kinds = [kind for kind in kinds if kind.own]
        print("the other frameworks are not installed (make frameworks): ours runs alone", file=sys.stderr)
    with ExitStack() as stack:
        contestants = []
        for kind in kinds:
            python = Path(sys.executable) if kind.own else frameworks.absolute() / "bin" / "python"
            contestant = Contestant.start(kind, python)
            stack.callback(contestant.close)
            contestant.reply()  # ready
            contestants.append(contestant)
        for number in range(rounds):
            print(f"  round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            for load in LOADS:
                for contestant in contestants:
                    contestant.turn(load)
            contestants.append(contestants.pop(0))  # who comes after whom must not matter
    return sorted(contestants, key=lambda c: KINDS.index(c.kind))


def tell(contestants: list[Contestant], rounds: int) -> None:
    rows = []
    for contestant in contestants:
        steps = [1e6 * s for s in contestant.unit_s["chain"]]
        rates = [1 / s for s in contestant.unit_s["tasks"]]
        rows.append([
            contestant.kind.name, contestant.version,
            f"{statistics.median(steps):.0f}", f"{min(steps):.0f} to {max(steps):.0f}",
            f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f} to {max(rates):,.0f}",
        ])  # fmt: skip
    columns = ["", "version", "µs CPU a step", "fastest to slowest", "tasks a CPU-second", "slowest to fastest"]
    notes = [
        f"A step: of a chain of {STEPS}, {CHAINS} chains one after the other. Tasks: {TASKS:,} at once, one step each. "
        f"Medians of {rounds} alternated rounds; CPU time of the whole process.",
        "Steps of swarmlet are kind tool (a coroutine function), asked through dispatcher, bus and host as any other; "
        "each is journalled before the next begins, and its output is checked against its schema.",
        "agent-framework-core, graph: a workflow runs one thing at a time, so each task has one of its own, built "
        "beforehand. Functional: a chain of awaited steps; the tasks are one run that fans out to as many executors.",
    ]
    report = Report()
    report.table("Overhead of a step that does nothing", columns, rows, notes)
    report.close()


def _version(python: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--frameworks", type=Path, default=HERE.parent / ".venv-frameworks")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    args = parser.parse_args()
    tell(compare(args.rounds, args.frameworks, args.only), args.rounds)


if __name__ == "__main__":
    main()
