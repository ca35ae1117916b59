"""What a tier once said, looked up instead of asked: no model, no network, no price but the recorded one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from protocols.control import ModelSpec
from swarm.errors import ModelDamaged, ModelNotFound
from swarm.plan.recordings import Row, rows_of


class Replay:
    """The recorded answers of one tier."""

    def __init__(self, spec: ModelSpec) -> None:
        """Reads the file. Raises `ModelNotFound`, and `ModelDamaged` when it has changed since the swarm was loaded."""
        assert spec.recording is not None
        self.tier = spec.tier
        self.name = spec.name
        self.timed = spec.recording.timed
        path = Path(spec.recording.path)
        try:
            data = path.read_bytes()
        except OSError as e:
            raise ModelNotFound(f"recording {path} cannot be read here ({e.strerror}); put it there") from None
        self.sha256 = hashlib.sha256(data).hexdigest()
        if self.sha256 != spec.recording.sha256:
            raise ModelDamaged(
                f"recording {path} is not the file that the swarm was loaded with; put the same one on every machine, "
                "or load the swarm again"
            )
        self._rows = rows_of(data, spec.tier)

    def find(self, step: str, queries: Iterable[str]) -> Row | None:
        """The row of the first of `queries` that has one, a row of this very step first."""
        for query in queries:
            row = self._rows.get((step, query)) or self._rows.get((None, query))
            if row is not None:
                return row
        return None
