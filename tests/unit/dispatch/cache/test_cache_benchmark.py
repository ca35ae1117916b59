"""What the benchmark compares with behaves as its paper says."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[4] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_vcache_explores_until_it_has_seen_enough_of_an_item() -> None:
    """Always with fewer than six observations, hardly ever with many right ones, and more where some were wrong."""
    from cached.vcache import Item

    item, doubtful = Item(), Item()
    for _ in range(3):
        assert item.explore(0.9, 0.02) == 1.0
        item.observe(0.85, right=True)
    for i in range(60):
        item.observe(0.85, right=True)
        doubtful.observe(0.85, right=i % 3 > 0)
    assert item.explore(0.9, 0.02) < 0.1
    assert item.explore(0.3, 0.02) > 0.9
    assert doubtful.explore(0.9, 0.02) > 0.9


def test_a_broken_promise_is_counted_as_one() -> None:
    """At the end, and at any time before."""
    from cached.outcome import Count, kept, kept_always

    early = Count()
    early.reuse(wrong=True)
    for _ in range(99):
        early.compute()
    good = Count()
    for _ in range(100):
        good.reuse(wrong=False)
    outcomes = [early.done(), good.done()]
    assert [o.error for o in outcomes] == [0.01, 0.0]
    assert (kept(outcomes, 0.02), kept_always(outcomes, 0.02)) == (1.0, 0.5)
