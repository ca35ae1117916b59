"""How many callers may wait for a swarm: beyond that they learn at once when to come back."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from swarm.errors import Overloaded

WAITING = 8  # times as many tasks may wait as are worked on at once
LEAST_S, MOST_S = 0.05, 60.0  # of the time to come back
GUESSED_S = 1.0  # as long as no task has ended
SEEN = 64  # ends of tasks from which the rate is taken


class Admission:
    """Counts the callers of one swarm; safe from any thread, so that nobody waits for a busy event loop to refuse him.

    `at_once`: tasks that are worked on at the same time. `waiting`: the most that wait for a place among them.
    """

    def __init__(
        self, at_once: int, waiting: int | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.at_once = at_once
        self.waiting = WAITING * at_once if waiting is None else waiting
        self.inside = 0
        self._clock = clock
        self._ended: deque[float] = deque(maxlen=SEEN)
        self._lock = threading.Lock()
        self._place = _Place(self._leave)

    def place(self, *, patient: bool = False) -> _Place:
        """A place inside. Raises `Overloaded` where none is free; who is `patient` takes no more than he can use and is
        never refused."""
        with self._lock:
            if not patient and self.inside >= self.at_once + self.waiting:
                raise self._refusal()
            self.inside += 1
        return self._place

    def _leave(self) -> None:
        with self._lock:
            self.inside -= 1
            self._ended.append(self._clock())

    def _refusal(self) -> Overloaded:
        """With the time until half of those that wait now should be through."""
        retry_s = min(MOST_S, max(LEAST_S, self.waiting / 2 / rate)) if (rate := self._rate()) else GUESSED_S
        most = self.at_once + self.waiting
        return Overloaded(
            f"{self.inside:,} tasks are worked on or wait, at most {most:,} may; come back in {retry_s:.1f} s, hand "
            "many items to `map`, or raise runtime.max_in_flight",
            retry_s,
        )

    def _rate(self) -> float:
        """Tasks that end in a second, of late."""
        if len(self._ended) < 2 or (took := self._clock() - self._ended[0]) <= 0:
            return 0.0
        return (len(self._ended) - 1) / took


class _Place:
    """To be used as a context manager at once: who leaves it makes room."""

    __slots__ = ("_leave",)

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._leave()
