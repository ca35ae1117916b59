"""Which programs live, by no clock but one's own: each counts up while it lives, and the others watch its count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw

from swarm.state.base import OwnerId

TTL_S = 30.0  # a count that has stood still for this long, watched by us, is that of a dead program

_BEAT = "INSERT INTO owners VALUES (?, 1) ON CONFLICT DO UPDATE SET beats = beats + 1"
_OPEN = """
SELECT DISTINCT holds.owner, owners.beats FROM holds LEFT JOIN owners ON owners.id = holds.owner
WHERE holds.state IN ('held', 'sent')
"""
_GONE = """
DELETE FROM owners WHERE id = ?1 AND NOT EXISTS (
  SELECT 1 FROM holds WHERE owner = ?1 AND state IN ('held', 'sent'))
"""


class Owners:
    """A moved wall clock harms nothing, and a machine that slept starts watching anew."""

    def __init__(self, owner: OwnerId, clock: Callable[[], float], ttl_s: float = TTL_S) -> None:
        self._owner = owner
        self._clock = clock
        self._ttl_s = ttl_s
        self._next: float | None = None  # the next beat; None: nothing is open anywhere, nobody has to know of us
        self._seen: dict[OwnerId, tuple[int | None, float]] = {}  # others with open holds: count, seen first when

    @property
    def next(self) -> float | None:
        return self._next

    def wake(self) -> None:
        """A hold was taken: from now on others must see that we live."""
        if self._next is None:
            self._next = self._clock()

    def tend(self, db: apsw.Connection) -> list[OwnerId]:
        """Within a transaction: tell that we live, when it is time; returns those who are dead and hold something."""
        if not self.due():
            return []
        db.execute(_BEAT, (self._owner,))
        return self.dead(db.execute(_OPEN).fetchall())

    def due(self) -> bool:
        """Whether it is time to count up; if so, the next time is set."""
        now = self._clock()
        if self._next is None or now < self._next:
            return False
        self._next = now + self._ttl_s / 3
        return True

    def dead(self, found: list[Any]) -> list[OwnerId]:
        """Whose count stood still for too long. `found`: all who hold something, with their counts."""
        now = self._clock()
        if not found:
            self._next = None
        self._seen = {owner: self._watched(owner, beats, now) for owner, beats in found if owner != self._owner}
        return [owner for owner, (_, since) in self._seen.items() if now - since >= self._ttl_s]

    def _watched(self, owner: OwnerId, beats: int | None, now: float) -> tuple[int | None, float]:
        known = self._seen.get(owner)
        return known if known is not None and known[0] == beats else (beats, now)

    def leave(self, db: apsw.Connection) -> None:
        """Nobody has to watch one who holds nothing."""
        db.execute(_GONE, (self._owner,))
