import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.engine.llama.saved import SavedPrefixes
from swarm.engine.llama.seen import common


def saved(folder: Path, *prefixes: list[int], state: bytes = b"state") -> SavedPrefixes:
    """The folder as a new process finds it."""
    store = SavedPrefixes(folder)
    for prefix in prefixes:
        store.write(prefix, state)
    store.close()
    return SavedPrefixes(folder)


def test_what_was_written_is_read_by_the_next_process(tmp_path: Path) -> None:
    """A prefix comes back with exactly the state that was kept for it."""
    store = saved(tmp_path, [1, 2, 3], state=b"x" * 1000)
    assert store.longest([1, 2, 3, 4]) == 3
    assert store.read([1, 2, 3]) == b"x" * 1000


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), max_size=10), st.lists(st.integers(0, 2)))
def test_the_longest_saved_prefix_is_found(prefixes: list[list[int]], prompt: list[int]) -> None:
    """Of all saved prefixes the longest that the prompt begins with is named, or none."""
    store = SavedPrefixes(Path("/nonexistent"))
    for prefix in prefixes:
        store._remember(bytes(b for token in prefix for b in token.to_bytes(4, "big")), "x")
    whole = [len(prefix) for prefix in prefixes if common(prefix, prompt) == len(prefix)]
    assert store.longest(prompt) == max(whole, default=0)


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d[:-1] + b"?", lambda d: b"", lambda d: b"?" + d[1:]])
def test_a_damaged_file_is_never_used(tmp_path: Path, damage: object) -> None:
    """A file that is cut or changed is not offered, or is refused and deleted when it is read."""
    saved(tmp_path, [1, 2, 3])
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    store = SavedPrefixes(tmp_path)
    assert store.longest([1, 2, 3]) == 0 or (store.read([1, 2, 3]) is None and not file.exists())
    assert store.longest([1, 2, 3]) == 0


def test_the_files_unused_for_longest_go_when_there_are_too_many(tmp_path: Path) -> None:
    """Together the files stay below the limit; the one used last stays."""
    store = SavedPrefixes(tmp_path, most_bytes=3000)
    for token in range(5):
        store.write([token], bytes(1000))
    store.close()
    assert 1 <= len(SavedPrefixes(tmp_path)) <= 2
    assert SavedPrefixes(tmp_path).longest([4]) == 1


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    """Where nothing can be saved work goes on, and nothing is offered."""
    (tmp_path / "file").write_text("")
    store = SavedPrefixes(tmp_path / "file" / "folder")
    store.write([1, 2], b"state")
    store.close()
    assert store.longest([1, 2]) == 0
    assert store.read([1, 2]) is None


def test_a_prefix_is_known_only_when_its_file_is_whole(tmp_path: Path) -> None:
    """A prefix is not offered while it waits to be written; then this process reads it too."""
    store, may_write = SavedPrefixes(tmp_path), threading.Event()
    store._writer.submit(may_write.wait)
    store.write([1, 2], b"state")
    known_before = store.longest([1, 2, 3])
    may_write.set()
    store.close()
    assert (known_before, store.longest([1, 2, 3]), store.read([1, 2])) == (0, 2, b"state")
