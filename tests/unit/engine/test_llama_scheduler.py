import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.engine.llama.scheduler import Scheduler
from swarm.engine.llama.scoring import Wave, option_tree
from swarm.engine.llama.step import Cut, Fork, Limits, Seat, Step
from swarm.engine.llama.work import PromptTokens, Result, Row, Work

LIMITS = Limits(cells=120, tokens=32, rows=32, running=6, sequences=24)


class Errand(Work):
    """A request whose answer needs `answer` tokens, one a step, and the waves of `options` before them."""

    def __init__(self, prompt: PromptTokens, answer: int, options: list[list[int]]) -> None:
        tree = option_tree(options, LIMITS.wave_lanes, LIMITS.wave_nodes) if options else None
        self.waves = list(tree.waves) if tree else []
        super().__init__(prompt, max(answer, tree.room if tree else 0))
        self.answer = answer

    @property
    def wave(self) -> Wave | None:
        return self.waves[0] if self.waves else None

    def absorb(self, last: Row | None, wave: Wave | None, rows: np.ndarray) -> Result | None:
        raise NotImplementedError

    def decoded(self, last: bool, wave: Wave | None) -> bool:
        """True when the errand is done."""
        if wave:
            self.waves.pop(0)
        if self.pending or self.waves:
            return False
        self.answer -= 1
        if self.answer > 0:
            self.pending.append(7)
        return self.answer <= 0


class Memory:
    """What llama.cpp's memory holds, and its rules."""

    def __init__(self) -> None:
        self.holds: dict[int, list[object]] = defaultdict(list)

    def run(self, scheduler: Scheduler, step: Step) -> None:
        for span in step.spans:
            for index, _ in enumerate(span.tokens):
                cell = object()
                for sequence in span.sequences:
                    assert len(self.holds[sequence]) == span.position + index, "positions have no holes"
                    self.holds[sequence].append(cell)
        assert len({cell for cells in self.holds.values() for cell in cells}) <= LIMITS.cells
        assert step.tokens <= LIMITS.tokens
        assert step.rows == sum(span.output for span in step.spans) <= LIMITS.rows

    def apply(self, scheduler: Scheduler) -> None:
        for operation in scheduler.take_operations():
            match operation:
                case Fork(source, target):
                    assert not self.holds[target], "a fork starts from nothing"
                    self.holds[target] = list(self.holds[source])
                case Cut(sequence, position):
                    del self.holds[sequence][position:]

    def in_use(self) -> dict[int, int]:
        return {sequence: len(cells) for sequence, cells in self.holds.items() if cells}


def turn(scheduler: Scheduler, memory: Memory) -> list[Work]:
    """One step of the engine; returns the work that it finished."""
    step = scheduler.schedule()
    memory.apply(scheduler)
    memory.run(scheduler, step)
    scheduler.commit(step)
    done = []
    for part in step.parts:
        if isinstance(part.owner, Seat) and part.owner.work.decoded(part.last, part.wave):  # type: ignore[attr-defined]
            scheduler.release(part.owner)
            done.append(part.owner.work)
    memory.apply(scheduler)
    return done


def errand(own: int, answer: int = 1, shared: int = 0, options: list[list[int]] | None = None) -> Errand:
    return Errand(PromptTokens(tuple(range(shared)), tuple(range(own))), answer, options or [])


option_lists = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), max_size=8)
errands = st.builds(errand, st.integers(1, 50), st.integers(1, 9), st.sampled_from([0, 0, 5, 20]), option_lists)


@settings(deadline=None)
@given(st.lists(errands, max_size=20), st.integers(0, 1 << 30))
def test_everything_finishes_and_only_prefixes_stay(work: list[Errand], seed: int) -> None:
    """Whatever arrives whenever, and whatever is cancelled: the rest finishes, and memory holds just the prefixes."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    coming, unfinished, chance = list(work), set(work), random.Random(seed)
    for _ in range(2000):
        while coming and chance.random() < 0.5:
            scheduler.add(coming.pop())
        if chance.random() < 0.05 and work:
            chance.choice(work).cancelled = True
        unfinished -= set(scheduler.drop_cancelled())
        unfinished -= set(turn(scheduler, memory))
        if not coming and scheduler.idle:
            break
    assert not unfinished
    assert memory.in_use() == {prefix.sequence: len(prefix.tokens) for prefix in scheduler.prefixes}
    assert scheduler.cells == scheduler.prefixes.cells
    assert len(scheduler._free) == LIMITS.sequences - len(scheduler.prefixes)


def test_a_short_request_is_not_held_up_by_a_long_one() -> None:
    """A short prompt that comes after a long one is done in the first step, the long one needs three."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    long, short = errand(own=70), errand(own=10)
    scheduler.add(long)
    scheduler.add(short)
    assert [turn(scheduler, memory) for _ in range(3)] == [[short], [], [long]]


def test_nothing_overtakes_the_head_of_the_queue() -> None:
    """A request that does not fit waits, and a smaller one behind it waits too: nobody starves."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    first, large, small = errand(own=60, answer=9), errand(own=80), errand(own=5)
    for work in (first, large, small):
        scheduler.add(work)
    turn(scheduler, memory)
    assert list(scheduler.waiting) == [large, small]


def test_a_shared_prefix_is_decoded_once() -> None:
    """Of requests with the same shared turns the first pays for them and the others read them from memory."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    works = [errand(own=4, shared=20) for _ in range(4)]
    for work in works:
        scheduler.add(work)
    while not scheduler.idle:
        turn(scheduler, memory)
    assert sum(work.tokens_in for work in works) == 20 + 4 * 4
    assert [work.tokens_cached for work in works] == [0, 20, 20, 20]
    assert scheduler.tokens_cached == 60


def test_a_prompt_and_its_options_are_one_step() -> None:
    """A short prompt is read and its options are scored in the same decode."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    work = errand(own=6, options=[[1, 2], [1, 3, 4], [2, 2]])
    scheduler.add(work)
    assert turn(scheduler, memory) == [work]


def test_idle_prefixes_make_room_for_requests() -> None:
    """A prefix that nobody builds on is given up when a request needs its cells."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    scheduler.add(errand(own=4, shared=20))
    while not scheduler.idle:
        turn(scheduler, memory)
    assert len(scheduler.prefixes) == 1
    large = errand(own=110)
    scheduler.add(large)
    while not scheduler.idle:
        turn(scheduler, memory)
    assert len(scheduler.prefixes) == 0 and not memory.in_use()


def test_a_refused_batch_sends_the_youngest_back_to_the_queue() -> None:
    """When the memory has no place after all, the youngest request begins again later and everything finishes."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    works = [errand(own=20, answer=3) for _ in range(3)]
    for work in works:
        scheduler.add(work)
    turn(scheduler, memory)
    step = scheduler.schedule()
    memory.apply(scheduler)
    scheduler.abandon(step)
    assert scheduler.make_room()
    assert list(scheduler.waiting) == [works[2]] and works[2].pending == list(works[2].prompt.own)
    memory.apply(scheduler)
    finished = [done for _ in range(20) if not scheduler.idle for done in turn(scheduler, memory)]
    assert set(finished) == set(works) and not memory.in_use()


def test_a_lone_request_that_has_no_room_cannot_be_helped() -> None:
    """With nothing to give up, making room fails instead of looping."""
    scheduler = Scheduler(LIMITS)
    scheduler.add(errand(own=20))
    scheduler.abandon(scheduler.schedule())
    assert not scheduler.make_room()


def test_reset_returns_to_an_empty_memory() -> None:
    """After a reset every sequence is cut and free, and the lost work is known."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    work = errand(own=20, answer=5, shared=5)
    scheduler.add(work)
    turn(scheduler, memory)
    assert scheduler.reset() == [work]
    memory.apply(scheduler)
    assert scheduler.idle and not memory.in_use() and len(scheduler._free) == LIMITS.sequences


def test_work_that_can_never_fit_is_a_bug_of_the_caller() -> None:
    """The queue takes nothing that would block it for ever."""
    with pytest.raises(AssertionError):
        Scheduler(LIMITS).add(errand(own=121))
