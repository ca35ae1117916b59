"""Ids name one thing each and sort by when they were made."""

from __future__ import annotations

import time

import pytest

from protocols import ids


def test_ids_of_the_same_moment_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random bits tell apart what the clock cannot."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    assert len({ids.new_id("t") for _ in range(10_000)}) == 10_000


def test_ids_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later millisecond sorts after an earlier one, as text."""
    made = []
    for ms in (1, 15, 16, 255, 256, 1_700_000_000_000, 1_700_000_000_001):
        monkeypatch.setattr(time, "time_ns", lambda ms=ms: ms * 1_000_000)
        made.append(ids.new_id("t"))
    assert made == sorted(made)
    assert all(id.startswith("t-") and len(id) == len(made[0]) for id in made)
