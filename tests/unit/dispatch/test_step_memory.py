"""A step is told what was said before under its key, and no more than it has room for."""

from __future__ import annotations

from typing import Any

import pytest
from memory_notes import KEY, memory, note, notebook, records, remembers

from swarm.dispatch.memory.memory import MOST_NOTES, PIECE, ROOM, overflow
from swarm.dispatch.memory.note import LONGEST, tokens_of
from swarm.dispatch.memory.notebook import Notebook
from swarm.errors import StoreError
from swarm.plan.plan import PlannedStep
from swarm.state.records import MemoryRecords

GIVEN = {"text": "Where is my parcel?"}


class Scribe:
    """A summariser that counts what it was given."""

    def __init__(self, said: str | None = "asked many things") -> None:
        self.given: list[str] = []
        self.said = said

    async def __call__(self, task: str, step: PlannedStep, text: str) -> str | None:
        self.given.append(text)
        return self.said


async def test_what_was_kept_is_recalled_in_the_next_task() -> None:
    """An accepted answer comes back as a line with what was asked, under the same key."""
    told = memory(notebook())
    await told.keep("t-1", remembers(), KEY, {"text": "Charged  twice\nfor A-1"}, {"label": "money"})
    given = await told.recall("t-2", remembers(), KEY, GIVEN)
    assert given == {**GIVEN, "memory": "Charged twice for A-1 → money"}


async def test_nothing_is_added_where_nothing_is_known() -> None:
    """Another key, a step that does not read, or a task without the key gets its inputs as they are."""
    told = memory(notebook())
    await told.keep("t-1", remembers(), KEY, GIVEN, {"label": "parcel"})
    for step, key in ((remembers(), "bob"), (remembers(read=False), KEY), (remembers(), None)):
        assert await told.recall("t-2", step, key, GIVEN) == GIVEN


async def test_a_step_that_does_not_write_leaves_no_note() -> None:
    """`write: false` only listens."""
    told = memory(notebook())
    await told.keep("t-1", remembers(write=False), KEY, GIVEN, {"label": "parcel"})
    assert await told.recall("t-2", remembers(), KEY, GIVEN) == GIVEN


async def test_task_is_not_told_its_own_notes() -> None:
    """A task that is gone on with after a crash is told what it was told before, not what it said itself."""
    told = memory(notebook())
    await told.keep("t-1", remembers(), KEY, GIVEN, {"label": "parcel"})
    assert await told.recall("t-1", remembers(), KEY, GIVEN) == GIVEN


async def test_note_made_twice_is_one() -> None:
    """Noting the same step of the same task again, as after a crash, changes nothing."""
    book = notebook()
    for _ in range(2):
        await memory(book).keep("t-1", remembers(), KEY, GIVEN, {"label": "parcel"})
    assert len(await book.of(KEY)) == 1


async def test_notes_do_not_repeat_the_notes() -> None:
    """What a step was reminded of is no part of what it was asked."""
    book = notebook()
    await memory(book).keep("t-1", remembers(), KEY, {**GIVEN, "memory": "old"}, {"label": "parcel"})
    assert [each.line for each in await book.of(KEY)] == ["Where is my parcel? → parcel"]


async def test_recalled_text_keeps_to_the_allowance() -> None:
    """However much there is to tell, no more tokens than `memory.tokens` are told."""
    book = notebook()
    for i in range(30):
        await book.put(KEY, note(i, "x" * LONGEST))
    given = await memory(book).recall("t-99", remembers(tokens=200), KEY, GIVEN)
    assert 100 < tokens_of(given["memory"]) <= 200


async def test_like_notes_win_over_newer_ones_and_newest_wins_a_tie() -> None:
    """A note that shares words with the question is recalled before newer ones that do not."""
    book = notebook()
    await book.put(KEY, note(1, "the blue parcel to Rome"))
    for i in range(2, 12):
        await book.put(KEY, note(i))
    room = note(1, "the blue parcel to Rome").tokens + note(11).tokens
    given = await memory(book).recall("t-99", remembers(tokens=room), KEY, {"text": "parcel to Rome?"})
    assert given["memory"].splitlines() == ["the blue parcel to Rome → yes", "question 11 → yes"]


async def test_overflow_drops_the_oldest_down_to_the_allowance() -> None:
    """Without a summariser, only the newest notes that fit into one allowance stay when there are too many."""
    book = notebook()
    for i in range(MOST_NOTES):
        await book.put(KEY, note(i))
    await memory(book).keep("t-x", remembers(tokens=50), KEY, GIVEN, {"label": "parcel"})
    left = await book.of(KEY)
    assert left[-1].task == "t-x" and sum(each.tokens for each in left) <= 50
    assert [each.task for each in left[:-1]] == [f"t-{i}" for i in range(MOST_NOTES - len(left) + 1, MOST_NOTES)]


@pytest.mark.parametrize(
    ("notes", "longest", "over"), [(MOST_NOTES, 1, False), (MOST_NOTES + 1, 1, True), (12, 200, True)]
)
def test_overflow_is_by_number_and_by_size(notes: int, longest: int, over: bool) -> None:
    """Too many notes, or more text than four allowances, is too much."""
    made = [note(i, "x" * longest) for i in range(notes)]
    assert bool(overflow(made, 200)) == over
    if longest == 200:
        assert sum(each.tokens for each in made) > ROOM * 200


async def test_overflow_becomes_one_note() -> None:
    """A summariser is given all that is old, in pieces it can read, and what it says stands for it."""
    book, scribe = notebook(), Scribe()
    for i in range(MOST_NOTES):
        await book.put(KEY, note(i, f"question {i} of {'many ' * 10}"))
    await memory(book, scribe).keep("t-x", remembers(tokens=60, summarised=True), KEY, GIVEN, {"label": "parcel"})
    first, *rest = await book.of(KEY)
    assert first.summary and first.line == "asked many things" and len(rest) < 10
    read = "\n".join(scribe.given)
    assert all(f"question {i} " in read for i in range(MOST_NOTES - len(rest) + 1))
    assert all(tokens_of(text) <= PIECE for text in scribe.given) and len(scribe.given) > 1
    assert all(text.startswith("asked many things\n") for text in scribe.given[1:])
    given = await memory(book).recall("t-y", remembers(tokens=60), KEY, GIVEN)
    assert given["memory"].splitlines()[0] == "asked many things"


async def test_second_summary_takes_in_the_first() -> None:
    """What was summarised once is part of the next summary; there is never more than one."""
    book, scribe = notebook(), Scribe()
    told = memory(book, scribe)
    for i in range(3 * MOST_NOTES):
        await told.keep(
            f"t-{i:03}", remembers(tokens=400, summarised=True), KEY, {"text": f"question {i}"}, {"l": "yes"}
        )
    notes = await book.of(KEY)
    assert [each.summary for each in notes] == [True] + [False] * (len(notes) - 1) and len(notes) <= MOST_NOTES
    assert sum(text.startswith("asked many things\n") for text in scribe.given) >= 2


async def test_summariser_that_fails_loses_nothing_at_once() -> None:
    """Notes wait for a summariser that has nothing to say, but not for ever."""
    book = notebook()
    told = memory(book, Scribe(None))
    for i in range(2 * MOST_NOTES):
        await told.keep(f"t-{i:03}", remembers(summarised=True), KEY, {"text": str(i)}, {"label": "x"})
    assert len(await book.of(KEY)) == 2 * MOST_NOTES
    await told.keep("t-last", remembers(summarised=True), KEY, {"text": "z"}, {"label": "x"})
    assert len(await book.of(KEY)) <= MOST_NOTES


async def test_summary_leaves_room_for_notes() -> None:
    """A summariser that says a lot is cut to half of what is recalled."""
    book = notebook()
    for i in range(MOST_NOTES):
        await book.put(KEY, note(i))
    told = memory(book, Scribe("long " * 900))
    await told.keep("t-x", remembers(tokens=90, summarised=True), KEY, GIVEN, {"label": "parcel"})
    assert (await book.of(KEY))[0].tokens <= 46


async def test_memory_that_cannot_be_used_harms_no_task() -> None:
    """A store that fails costs what the notes would have said, and nothing else."""

    def broken() -> Any:
        raise StoreError("disk full")

    told = memory(Notebook(MemoryRecords(broken), "-/shop"))
    await told.keep("t-1", remembers(), KEY, GIVEN, {"label": "parcel"})
    assert await told.recall("t-2", remembers(), KEY, GIVEN) == GIVEN


async def test_nothing_crosses_tenants() -> None:
    """The same key of another tenant, or of another swarm, is another customer."""
    kept = records()
    await memory(notebook(kept, "acme/shop")).keep("t-1", remembers(), KEY, GIVEN, {"label": "parcel"})
    for scope in ("-/shop", "acme/other", "acme", ""):
        assert await memory(notebook(kept, scope)).recall("t-2", remembers(), KEY, GIVEN) == GIVEN
