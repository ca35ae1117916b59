"""The last tier: a file of what a person should look at, with everything known so far."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec

from protocols.tasks import Result
from swarm.errors import SwarmError


class PersonFile:
    """Appends one JSON object a line. A line is written whole, and is on disk's way before the result is returned."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def hand_over(self, item: dict[str, Any], result: Result) -> None:
        """Write down a task that waits for a person. Raises `SwarmError` when the file cannot be written."""
        waiting = [name for name, step in result.steps.items() if step.status == "person"]
        known = {name: step.output for name, step in result.steps.items() if step.output is not None}
        tried = [
            {"step": w.step, "tier": w.tier, "confidence": w.confidence, "reason": w.reason, "signals": w.signals}
            for w in result.why
            if w.step in waiting and w.decision != "person"
        ]
        line = {"task": result.task, "input": item, "for": waiting, "known": known, "tried": tried}
        with self._lock:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab") as out:
                    out.write(msgspec.json.encode(line) + b"\n")
            except OSError as e:
                raise SwarmError(
                    f"{self.path}: cannot be written ({e.strerror}), so nobody sees task {result.task!r}; "
                    "free it or name another file in runtime.person_file"
                ) from e
