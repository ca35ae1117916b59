"""What waits to be sent to one host: a queue for each kind of ask, so that a kind that is slow holds up no other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain

from protocols.control import Cancel
from protocols.ids import AttemptId
from swarm.bus.pace import Kind
from swarm.bus.pending import Pending


class Outbox:
    """Kinds take turns. `is_suspect(pending)`: it must be sent alone."""

    def __init__(self, is_suspect: Callable[[Pending], bool]) -> None:
        self._is_suspect = is_suspect
        self._cancels: deque[Cancel] = deque()
        self._queues: dict[Kind, deque[Pending]] = {}
        self._held: set[Kind] = set()
        self._stirred = asyncio.Event()

    def put(self, pending: Pending) -> None:
        self._queue(pending.kind).append(pending)
        self._stirred.set()

    def put_back(self, refused: list[Pending], retry_s: float) -> None:
        """The host has no room for these: they, and the others of their kinds, are sent after a while."""
        for pending in reversed(refused):
            self._queue(pending.kind).appendleft(pending)
        kinds = {pending.kind for pending in refused}
        self._held |= kinds
        asyncio.get_running_loop().call_later(retry_s, self._release, kinds)

    def cancel(self, id: AttemptId) -> None:
        """Goes before all asks, as it makes room for them."""
        self._cancels.append(Cancel(id=id))
        self._stirred.set()

    def clear(self) -> None:
        self._cancels.clear()
        self._queues.clear()
        self._held.clear()

    def unsent(self) -> list[Pending]:
        """Takes out what no host has been given yet."""
        fresh = [pending for pending in self._waiting() if pending.deliveries == 0]
        for kind, queue in self._queues.items():
            self._queues[kind] = deque(pending for pending in queue if pending.deliveries > 0)
        return [pending for pending in fresh if not pending.reply.done()]

    async def next(self, most: int) -> list[Pending | Cancel]:
        """Waits for something that may be sent, and takes what is still wanted. A suspect comes alone."""
        while not (batch := self._taken(most)):
            await self._stirred.wait()
            self._stirred.clear()
        return batch

    def _taken(self, most: int) -> list[Pending | Cancel]:
        batch: list[Pending | Cancel] = []
        while self._cancels and len(batch) < most:
            batch.append(self._cancels.popleft())
        while len(batch) < most and (ready := self._ready()):
            share = max(1, (most - len(batch)) // len(ready))
            for queue in ready:
                if not self._take(queue, min(share, most - len(batch)), batch):
                    return batch
        return batch

    def _take(self, queue: deque[Pending], n: int, batch: list[Pending | Cancel]) -> bool:
        """Up to `n` of one kind. False: a suspect comes, so that the batch ends here."""
        for _ in range(n):
            _drop_unwanted(queue)
            if not queue:
                break
            if self._is_suspect(queue[0]):
                if not batch:
                    batch.append(queue.popleft())
                return False
            batch.append(queue.popleft())
        return True

    def _ready(self) -> list[deque[Pending]]:
        """The queues that may be sent from and hold something that is still wanted."""
        for kind in [kind for kind in self._queues if kind not in self._held]:
            _drop_unwanted(self._queues[kind])
            if not self._queues[kind]:
                del self._queues[kind]
        return [queue for kind, queue in self._queues.items() if kind not in self._held]

    def _queue(self, kind: Kind) -> deque[Pending]:
        return self._queues.setdefault(kind, deque())

    def _waiting(self) -> Iterator[Pending]:
        return chain.from_iterable(self._queues.values())

    def _release(self, kinds: set[Kind]) -> None:
        self._held -= kinds
        self._stirred.set()


def _drop_unwanted(queue: deque[Pending]) -> None:
    while queue and queue[0].reply.done():
        queue.popleft()
