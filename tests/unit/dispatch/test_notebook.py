"""Notes lie under their key and nowhere else."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from memory_notes import KEY, note, notebook, records

from swarm.dispatch.memory.note import Note, one_line
from swarm.dispatch.memory.ranking import chosen, relevance
from swarm.state.records import Record

keys = st.text(min_size=1, max_size=12)


@given(st.lists(keys, min_size=2, max_size=6, unique=True))
@example(["?", "\ud800"])
async def test_keys_are_kept_apart_whatever_is_in_them(names: list[str]) -> None:
    """No key is taken for another, be it the beginning of it; forgetting one leaves the others."""
    book = notebook()
    for i, name in enumerate(names):
        await book.put(name, note(i))
    for i, name in enumerate(names):
        assert await book.of(name) == [note(i)]
    assert await book.forget(names[0]) == 1
    assert sorted(key for key, _, _ in await book.all()) == sorted(names[1:])


async def test_notes_come_oldest_first_with_the_summary_before_all() -> None:
    """Order is by time, not by name."""
    book = notebook()
    summary = Note(task="t-0", step="reply", asked="", answered="long ago", summary=True)
    for each in (note(3), note(1), note(2), summary):
        await book.put(KEY, each)
    assert await book.of(KEY) == [summary, note(3), note(1), note(2)]


async def test_dropping_a_note_leaves_those_whose_names_begin_so() -> None:
    """Steps `a` and `ab` of one task are two notes."""
    book = notebook()
    one, two = (Note(task="t-1", step=step, asked="q", answered="a") for step in ("a", "ab"))
    await book.put(KEY, one)
    await book.put(KEY, two)
    await book.drop(KEY, [one])
    assert await book.of(KEY) == [two]


async def test_many_notes_are_all_found() -> None:
    """More than one page of them, with neighbours on both sides."""
    book = notebook()
    for i in range(250):
        await book.put(KEY, note(i))
    await book.put(KEY + "x", note(1))
    await book.put("a", note(2))
    assert len(await book.of(KEY)) == 250 and len(await book.all()) == 252


async def test_note_of_another_program_is_passed_over() -> None:
    """What cannot be read is no note, and no failure."""
    kept = records()
    book = notebook(kept)
    await book.put("a", note(1))
    await kept.put([Record(kind="note", scope="-/shop", key="a/zz/", body=b"\xc1")])
    assert await book.of("a") == [note(1)]


def test_notes_are_chosen_in_their_order_within_the_tokens() -> None:
    """What is chosen keeps its order; a note that does not fit makes room for one that does."""
    notes = [note(0, "parcel " * 60), note(1, "about a parcel"), note(2, "other things")]
    assert chosen(notes, "my parcel", 20) == notes[1:]
    assert chosen(notes, "my parcel", 1000) == notes
    assert chosen(notes, "my parcel", 0) == [] and chosen([], "my parcel", 100) == []


def test_relevance_weighs_rare_words() -> None:
    """A word that every note has tells little, one that few have tells much; nothing in common is nothing."""
    texts = ["my order A7 is late", "my order is late", "my order is here"]
    first, second, third = relevance(texts, "order A7")
    assert first == 1.0 and first > 2 * second and abs(second - third) < 0.1
    assert relevance(texts, "zebra") == [0.0, 0.0, 0.0] and relevance([], "x") == [] and relevance([""], "x") == [0.0]


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.text(max_size=500), st.lists(st.integers()))))
def test_a_side_of_a_note_is_one_short_line(values: dict[str, object]) -> None:
    """Whatever comes in or goes out."""
    line = one_line(values)
    assert len(line) <= 240 and len(line.splitlines()) <= 1
