"""What steps remember: earlier notes given to them as an input more, and what they answered noted under the same key.

When the notes of a key are more than `MOST_NOTES`, or than `ROOM` times what is recalled of them, all but the newest
that fit into the allowance are made into one note by the summariser. Without one they are dropped; with one that
fails they stay, until they are twice as many.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from protocols.ids import TaskId
from swarm.config.packs import MEMORY
from swarm.dispatch.memory.note import BYTES_PER_TOKEN, Note, one_line, tokens_of
from swarm.dispatch.memory.notebook import Notebook
from swarm.dispatch.memory.ranking import chosen
from swarm.errors import StoreError
from swarm.plan.plan import PlannedStep, Remembering

log = structlog.get_logger(__name__)

MOST_NOTES = 50
ROOM = 4
PIECE = 320  # tokens of notes that a summariser is given at once; a small model reads 400 of a text

Summarise = Callable[[TaskId, PlannedStep, str], Awaitable[str | None]]


class Memory:
    """One run's. A memory that fails costs what it would have said, never a task.

    `summarise`: what a specialist makes of a text of notes, paid by a task; None where it has nothing to say.
    """

    def __init__(self, notebook: Notebook, summarise: Summarise | None = None) -> None:
        self._notebook = notebook
        self._summarise = summarise
        self._folding: set[str] = set()  # keys

    async def recall(
        self, task: TaskId, step: PlannedStep, key: str | None, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """`given`, and under `memory` a text of the notes that matter now, a line each, the oldest first.

        Without notes, `given` as it is. What this task has noted itself is left out: it knows that from its steps, and
        a task that is gone on with after a crash must be told the same again.
        """
        if step.memory is None or not step.memory.read or key is None:
            return dict(given)
        try:
            notes = [note for note in await self._notebook.of(key) if note.task != task]
        except StoreError as e:
            log.warning("memory.not_read", task_id=task, step=step.name, cause=str(e))
            return dict(given)
        lines = [note.line for note in chosen(notes, one_line(given), step.memory.tokens)]
        return {**given, MEMORY: "\n".join(lines)} if lines else dict(given)

    async def keep(
        self, task: TaskId, step: PlannedStep, key: str | None, given: Mapping[str, Any], output: Mapping[str, Any]
    ) -> None:
        """Note what an accepted answer was, durably; the same task and step may be noted again, it stays one note."""
        if step.memory is None or not step.memory.write or key is None:
            return
        asked = {name: value for name, value in given.items() if name in step.inputs}
        note = Note(task=task, step=step.name, asked=one_line(asked), answered=one_line(output))
        try:
            await self._notebook.put(key, note)
            await self._make_room(task, step, key)
        except StoreError as e:
            log.warning("memory.not_kept", task_id=task, step=step.name, cause=str(e))

    async def _make_room(self, task: TaskId, step: PlannedStep, key: str) -> None:
        assert step.memory is not None
        if key in self._folding:  # by another task; a note more or less is no matter
            return
        self._folding.add(key)
        try:
            notes = await self._notebook.of(key)
            old = overflow(notes, step.memory.tokens)
            if not old:
                return
            text = await self._summary(task, step.memory, old)
            if text is not None:
                last = old[-1]
                await self._notebook.put(
                    key, Note(task=last.task, step=last.step, asked="", answered=text, summary=True)
                )
                await self._notebook.drop(key, [note for note in old if not note.summary])
            elif step.memory.summariser is None or len(notes) > 2 * MOST_NOTES:
                await self._notebook.drop(key, old)
        finally:
            self._folding.discard(key)

    async def _summary(self, task: TaskId, memory: Remembering, notes: list[Note]) -> str | None:
        """The notes as one text, made piece by piece: each time of what is known so far, and the next that fit in.

        It takes at most half of the allowance.
        """
        if (summariser := memory.summariser) is None or self._summarise is None:
            return None
        known, waiting = "", [note.line for note in notes]
        while waiting:
            piece = [known] if known else []
            while waiting and (len(piece) < 2 or tokens_of("\n".join([*piece, waiting[0]])) <= PIECE):
                piece.append(waiting.pop(0))
            said = await self._summarise(task, summariser, "\n".join(piece))
            if said is None:
                log.warning("memory.not_summarised", task_id=task, summariser=summariser.specialist)
                return None
            known = one_line({"": said}, longest=memory.tokens * BYTES_PER_TOKEN // 2)
        return known


def overflow(notes: list[Note], tokens: int) -> list[Note]:
    """Which of a key's notes (the oldest first) are too old to stay; none as long as there is room for all."""
    if len(notes) <= MOST_NOTES and sum(note.tokens for note in notes) <= ROOM * tokens:
        return []
    left, kept = tokens, 0
    for note in reversed(notes):
        left -= note.tokens
        if left < 0 or kept >= MOST_NOTES // 2:
            break
        kept += 1
    return notes[: len(notes) - max(1, kept)]
