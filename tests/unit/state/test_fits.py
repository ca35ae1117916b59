"""Fits are kept by the hash of what they were learnt from, and made again when in doubt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from protocols.control import Calibration
from swarm.state.fits import FitCache

ARRAYS = {"weights": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(2, np.float32)}
CALIBRATION = Calibration(intercept=0.5, weights={"p": 1.25}, n_labels=20, accuracy=0.75)


@pytest.fixture
def cache(tmp_path: Path) -> FitCache:
    return FitCache(tmp_path / "fits")


def test_what_is_kept_is_found_again(cache: FitCache, tmp_path: Path) -> None:
    """Also by another cache on the same folder, as another process has."""
    cache.keep_arrays("k", ARRAYS)
    cache.keep_calibration("k", CALIBRATION)
    other = FitCache(tmp_path / "fits")
    found = other.arrays("k")
    assert found is not None
    assert {name: array.tolist() for name, array in found.items()} == {n: a.tolist() for n, a in ARRAYS.items()}
    assert other.calibration("k") == (CALIBRATION,)


def test_nothing_learnt_is_not_the_same_as_nothing_kept(cache: FitCache) -> None:
    """That there was too little to learn from is known the second time."""
    assert cache.calibration("k") is None
    cache.keep_calibration("k", None)
    assert cache.calibration("k") == (None,)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not quite a zip", b"{", b'{"intercept": "x"}'])
def test_a_damaged_file_is_as_good_as_none(cache: FitCache, tmp_path: Path, damage: bytes) -> None:
    """Whatever is in the way is written over."""
    cache.keep_arrays("k", ARRAYS)
    cache.keep_calibration("k", CALIBRATION)
    for file in (tmp_path / "fits").iterdir():
        file.write_bytes(damage)
    assert cache.arrays("k") is None
    assert cache.calibration("k") is None
    cache.keep_arrays("k", ARRAYS)
    assert cache.arrays("k") is not None


def test_a_cut_off_file_is_as_good_as_none(cache: FitCache, tmp_path: Path) -> None:
    """A disk that was full in the middle leaves no half fit."""
    cache.keep_arrays("k", ARRAYS)
    (file,) = (tmp_path / "fits").iterdir()
    whole = file.read_bytes()
    for n in range(0, len(whole), 7):
        file.write_bytes(whole[:n])
        assert cache.arrays("k") is None


def test_keys_tell_their_parts_apart() -> None:
    """Two parts are not the same as one part that reads like both."""
    assert FitCache.key("a", "b") == FitCache.key("a", "b")
    assert len({FitCache.key("a", "b"), FitCache.key("ab"), FitCache.key("b", "a"), FitCache.key("a", "b", "")}) == 4
