"""Callers beyond a bound learn at once when to come back."""

from __future__ import annotations

import pickle
from contextlib import ExitStack

import pytest

from swarm.errors import Overloaded
from swarm.runtime.admission import Admission
from swarm.testing import VirtualClock


def test_callers_beyond_the_bound_are_refused() -> None:
    """Two at work and three waiting are enough; as soon as one is through there is room for one more."""
    admission = Admission(2, 3)
    with ExitStack() as inside:
        for _ in range(4):
            inside.enter_context(admission.place())
        with (
            admission.place(),
            pytest.raises(Overloaded, match=r"at most 5 may; come back in 1\.0 s"),
            admission.place(),
        ):
            pass
        with admission.place():
            assert admission.inside == 5
    assert admission.inside == 0


def test_eight_times_as_many_may_wait_as_are_worked_on() -> None:
    """That is the default."""
    assert Admission(32).waiting == 256


def test_who_is_patient_is_never_refused() -> None:
    """He takes no more than he can use, as `map` does, but counts for the others."""
    admission = Admission(1, 0)
    with admission.place(), admission.place(patient=True):
        assert admission.inside == 2
        with pytest.raises(Overloaded), admission.place():
            pass


def test_the_time_to_come_back_is_that_of_half_the_line() -> None:
    """At the rate at which tasks have ended of late: ten a second, forty waiting, two seconds."""
    clock = VirtualClock()
    admission = Admission(1, 40, clock=clock)
    for _ in range(20):
        clock.advance(0.1)
        with admission.place():
            pass
    with ExitStack() as inside:
        for _ in range(41):
            inside.enter_context(admission.place())
        with pytest.raises(Overloaded) as refused, admission.place():
            pass
        inside.pop_all()
    assert refused.value.retry_s == pytest.approx(2.0)


def test_a_refusal_survives_its_journey() -> None:
    """It keeps its words and its time, also from another process."""
    error = pickle.loads(pickle.dumps(Overloaded("come back", 1.5)))
    assert (str(error), error.retry_s) == ("come back", 1.5)
