import random
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.engine.base import Origin
from swarm.engine.llama.memory import LEAST_SAVED
from swarm.engine.llama.prefix import Node
from swarm.engine.llama.scheduler import Scheduler
from swarm.engine.llama.scoring import Wave, option_tree
from swarm.engine.llama.step import Cut, Fork, Limits, Restore, Seat, Step
from swarm.engine.llama.work import Result, Work

LIMITS = Limits(cells=160, tokens=32, rows=32, running=6, sequences=32)


class Errand(Work):
    """A request whose answer needs `answer` tokens, one a step, and the waves of `options` before them.

    Every token of the answer comes with `drafts` guesses, of which all but the first turn out wrong.
    """

    def __init__(
        self, prompt: Sequence[int], answer: int, options: list[list[int]], shared: int, task: str, drafts: int
    ) -> None:
        tree = option_tree(options, LIMITS.wave_lanes, LIMITS.wave_nodes) if options else None
        self.waves = list(tree.waves) if tree else []
        super().__init__(prompt, max(answer + drafts, tree.room if tree else 0), shared=shared, origin=Origin(task))
        self.answer, self.drafts, self.written = answer, drafts, 0

    @property
    def wave(self) -> Wave | None:
        return self.waves[0] if self.waves else None

    @property
    def writing(self) -> bool:
        return self.written > 0

    def admitted(self, prefix: int, cached: int) -> None:
        super().admitted(prefix, cached)
        self.pending += [7] * self.written
        self.wanted = 1

    def absorb(self, heads: np.ndarray, wave: Wave | None, rows: np.ndarray) -> Result | None:
        raise NotImplementedError

    def decoded(self, heads: int, wave: Wave | None) -> bool:
        """True when the errand is done."""
        if wave:
            self.waves.pop(0)
        if self.pending or self.waves:
            return False
        assert heads in (self.wanted, 0)
        self.forgotten = max(0, self.wanted - 2)
        self.written += 1 + (self.wanted > 1)
        if self.written >= self.answer:
            return True
        guesses = min(self.drafts, self.answer - self.written)
        self.pending = [7] * (1 + guesses)
        self.wanted = 1 + guesses
        return False


class Memory:
    """What llama.cpp's memory holds, and its rules."""

    def __init__(self) -> None:
        self.holds: dict[int, list[object]] = defaultdict(list)

    def run(self, step: Step) -> None:
        for span in step.spans:
            for index, _ in enumerate(span.tokens):
                cell = object()
                for sequence in span.sequences:
                    assert len(self.holds[sequence]) == span.position + index, "positions have no holes"
                    self.holds[sequence].append(cell)
        assert len({cell for cells in self.holds.values() for cell in cells}) <= LIMITS.cells
        assert step.tokens <= LIMITS.tokens
        assert step.rows == sum(span.outputs for span in step.spans) <= LIMITS.rows

    def apply(self, scheduler: Scheduler) -> None:
        for operation in scheduler.take_operations():
            match operation:
                case Fork(source, target, end):
                    held = self.holds[target]
                    assert held == self.holds[source][: len(held)], "a fork adds to nothing, or to a part of the same"
                    self.holds[target] = self.holds[source][:end]
                case Cut(sequence, start, None):
                    del self.holds[sequence][start:]
                case Restore(node):
                    node.restorable = False
                    node.decoded, node.forked = len(node.tokens), True
                    before = self.holds[node.parent.sequence][: node.start] if node.parent else []
                    self.holds[node.sequence] = before + [object() for _ in node.tokens]
                case _:
                    raise AssertionError(operation)

    def in_use(self) -> dict[int, int]:
        return {sequence: len(cells) for sequence, cells in self.holds.items() if cells}


def turn(scheduler: Scheduler, memory: Memory, now: float = 0.0) -> list[Work]:
    """One step of the engine; returns the work that it finished."""
    step = scheduler.schedule(now)
    memory.apply(scheduler)
    memory.run(step)
    scheduler.commit(step)
    done = []
    for part in step.parts:
        if isinstance(part.owner, Seat):
            if part.owner.work.decoded(part.heads, part.wave):  # type: ignore[attr-defined]
                scheduler.release(part.owner)
                done.append(part.owner.work)
            else:
                scheduler.forget_tail(part.owner)
                part.owner.work.forgotten = 0
    memory.apply(scheduler)
    return done


_names = iter(range(1 << 60))


def errand(
    own: int, answer: int = 1, shared: int = 0, options: list[list[int]] | None = None, task: str = "", drafts: int = 0
) -> Errand:
    """A prompt of `shared` tokens that others have too, and `own` that nobody else has."""
    name = next(_names)
    prompt = [*range(shared), *(1000 + 1000 * name + i for i in range(own))]
    return Errand(prompt, answer, options or [], shared, task, drafts)


def same_beginning(common: int, own: int) -> Errand:
    """A prompt that begins like others without saying so."""
    work = errand(own, shared=common)
    work.shared = 0
    return work


option_lists = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), max_size=8)
errands = st.builds(
    errand, st.integers(1, 50), st.integers(1, 9), st.sampled_from([0, 0, 5, 20, 40]), option_lists,
    st.sampled_from(["", "a", "b"]), st.integers(0, 3),
)  # fmt: skip


def tree_in_memory(scheduler: Scheduler) -> dict[int, int]:
    return {node.sequence: node.end for node in scheduler.tree}


@settings(deadline=None)
@given(st.lists(errands, max_size=20), st.integers(0, 1 << 30), st.booleans())
def test_everything_finishes_and_only_prefixes_stay(work: list[Errand], seed: int, hinted: bool) -> None:
    """Whatever arrives whenever, and whatever is cancelled: the rest finishes, and memory holds just the prefixes."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    coming, unfinished, chance = list(work), set(work), random.Random(seed)
    for now in range(2000):
        while coming and chance.random() < 0.5:
            coming[-1].shared *= hinted
            scheduler.add(coming.pop(), now)
        if chance.random() < 0.05 and unfinished:
            unwanted = [one for one in unfinished if scheduler.queue.knows(one)][:1]
            scheduler.drop(unwanted)
            unfinished -= set(unwanted)
        unfinished -= set(turn(scheduler, memory, now))
        if not coming and scheduler.idle:
            break
    assert not unfinished
    assert memory.in_use() == tree_in_memory(scheduler)
    assert scheduler.cells == scheduler.tree.cells == len({c for cells in memory.holds.values() for c in cells})
    assert len(scheduler._free) == LIMITS.sequences - len(scheduler.tree)


def finish(scheduler: Scheduler, memory: Memory) -> list[Work]:
    order = []
    for _ in range(200):
        if scheduler.idle:
            break
        order += turn(scheduler, memory)
    assert scheduler.idle
    return order


def test_a_short_request_is_not_held_up_by_a_long_one() -> None:
    """A short prompt that comes after a long one is done in the first step, the long one needs three."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    long, short = errand(own=70), errand(own=10)
    scheduler.add(long, 0)
    scheduler.add(short, 0)
    assert [turn(scheduler, memory) for _ in range(3)] == [[short], [], [long]]


def test_small_requests_pass_one_that_does_not_fit_but_not_for_ever() -> None:
    """A request that waits for memory is overtaken by smaller ones a limited number of times."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    first, large = errand(own=60, answer=85), errand(own=120)
    for work in (first, large):
        scheduler.add(work, 0)
    passed = 0
    for _ in range(80):
        small = errand(own=5)
        scheduler.add(small, 0)
        passed += turn(scheduler, memory) == [small]
    assert 60 < passed < 70 and large in list(scheduler.queue)


def test_the_task_that_was_served_least_goes_first() -> None:
    """A task with one request is served before the rest of a task with many, whenever it comes."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    many = [errand(own=30, task="many") for _ in range(12)]
    for work in many:
        scheduler.add(work, 0)
    turn(scheduler, memory)
    single = errand(own=30, task="single")
    scheduler.add(single, 0)
    assert finish(scheduler, memory).index(single) < 6


def test_waiting_makes_up_for_service() -> None:
    """A request of a well-served task that has waited long goes before one of a fresh task that just came."""
    scheduler = Scheduler(LIMITS)
    served, old, fresh = errand(own=1, task="a"), errand(own=1, task="a"), errand(own=1, task="b")
    scheduler.add(served, 0)
    scheduler.queue.serve(served, 500)
    scheduler.add(old, 0)
    scheduler.add(fresh, 1)
    assert scheduler.queue.in_order(1)[0] is fresh
    scheduler.queue.forget(fresh)
    scheduler.add(late := errand(own=1, task="c"), 100)
    assert scheduler.queue.in_order(100)[-1] is late


def test_a_request_about_to_miss_its_deadline_goes_first() -> None:
    """Urgent work passes work of less served tasks; one whose time is up is overdue."""
    scheduler = Scheduler(LIMITS)
    calm, urgent = errand(own=50), errand(own=50)
    urgent.origin = Origin(left_s=0.15)
    scheduler.add(calm, 0)
    scheduler.add(urgent, 0)
    assert scheduler.queue.in_order(0)[0] is urgent
    assert (scheduler.queue.overdue(0.1), scheduler.queue.overdue(0.2)) == ([], [urgent])


def test_a_shared_prefix_is_decoded_once() -> None:
    """Of requests with the same shared turns the first pays for them and the others read them from memory."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    works = [errand(own=4, shared=20) for _ in range(4)]
    for work in works:
        scheduler.add(work, 0)
    finish(scheduler, memory)
    assert sum(work.tokens_in for work in works) == 20 + 4 * 4
    assert sorted(work.tokens_cached for work in works) == [0, 20, 20, 20]
    assert scheduler.tokens_cached == 60


def test_a_common_beginning_is_found_without_being_told() -> None:
    """Prompts that wait together share what they have in common, and a prefix that parts in the middle is split."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    works = [same_beginning(40, 4), same_beginning(40, 4), same_beginning(20, 4)]
    for work in works:
        scheduler.add(work, 0)
    finish(scheduler, memory)
    assert sum(work.tokens_in for work in works) == 40 + 3 * 4
    assert sorted(work.tokens_cached for work in works) == [0, 20, 40]


def test_few_common_tokens_are_not_worth_a_sequence() -> None:
    """Prompts that have less in common than a sequence is worth are read each for itself."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    works = [same_beginning(LEAST_SAVED - 1, 4) for _ in range(2)]
    for work in works:
        scheduler.add(work, 0)
    finish(scheduler, memory)
    assert len(scheduler.tree) == 0 and not memory.in_use()


def test_equal_prompts_are_read_once_but_for_their_last_token() -> None:
    """Candidates of one answer share all of the prompt except the token whose logits each of them needs."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    works = [errand(own=0, shared=30) for _ in range(5)]
    for work in works:
        scheduler.add(work, 0)
    finish(scheduler, memory)
    assert sum(work.tokens_in for work in works) == 29 + 5


class OnDisk:
    def __init__(self, prefix: list[int]) -> None:
        self.prefix = prefix

    def longest(self, prompt: Sequence[int]) -> int:
        n = len(self.prefix)
        return n if list(prompt[:n]) == self.prefix else 0


def test_a_prefix_on_disk_is_restored_and_what_goes_beyond_it_decoded() -> None:
    """The saved part of a prompt is read from disk before anything else; only the rest is decoded."""
    scheduler, memory = Scheduler(LIMITS, OnDisk(list(range(30)))), Memory()
    works = [errand(own=4, shared=50) for _ in range(2)]
    for work in works:
        scheduler.add(work, 0)
    finish(scheduler, memory)
    assert sorted(work.tokens_in for work in works) == [4, 24]
    assert memory.in_use() == tree_in_memory(scheduler)


def test_a_prompt_and_its_options_are_one_step() -> None:
    """A short prompt is read and its options are scored in the same decode."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    work = errand(own=6, options=[[1, 2], [1, 3, 4], [2, 2]])
    scheduler.add(work, 0)
    assert turn(scheduler, memory) == [work]


def test_the_prefix_that_saves_least_makes_room() -> None:
    """Cells are taken from the prefix with the fewest tokens times uses, and never from one in use."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    for beginning, uses in ((0, 3), (500, 1)):
        for _ in range(uses):
            work = errand(own=2, shared=30)
            work.prompt = tuple(token + beginning for token in work.prompt)
            scheduler.add(work, 0)
            finish(scheduler, memory)
    assert len(scheduler.tree) == 2
    scheduler.add(errand(own=110), 0)
    finish(scheduler, memory)
    left = {node.tokens[0] for node in scheduler.tree}
    assert 0 in left and 500 not in left


def test_a_refused_batch_sends_the_youngest_back_to_the_queue() -> None:
    """When the memory has no place after all, the youngest request begins again later and everything finishes."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    works = [errand(own=20, answer=3) for _ in range(3)]
    for work in works:
        scheduler.add(work, 0)
    turn(scheduler, memory)
    step = scheduler.schedule(0)
    memory.apply(scheduler)
    scheduler.abandon(step)
    assert scheduler.make_room(0)
    assert list(scheduler.queue) == [works[2]]
    memory.apply(scheduler)
    assert set(finish(scheduler, memory)) == set(works) and not memory.in_use()


def test_a_lone_request_that_has_no_room_cannot_be_helped() -> None:
    """With nothing to give up, making room fails instead of looping."""
    scheduler = Scheduler(LIMITS)
    scheduler.add(errand(own=20), 0)
    scheduler.abandon(scheduler.schedule(0))
    assert not scheduler.make_room(0)


def test_reset_returns_to_an_empty_memory() -> None:
    """After a reset every sequence is cut and free, and the lost work is known."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    work = errand(own=20, answer=5, shared=20)
    scheduler.add(work, 0)
    turn(scheduler, memory)
    turn(scheduler, memory)
    assert scheduler.reset() == [work]
    memory.apply(scheduler)
    assert scheduler.idle and not memory.in_use() and len(scheduler._free) == LIMITS.sequences


def test_work_that_can_never_fit_is_a_bug_of_the_caller() -> None:
    """The queue takes nothing that would block it for ever."""
    with pytest.raises(AssertionError):
        Scheduler(LIMITS).add(errand(own=161), 0)


def test_half_a_prefix_that_nobody_waits_for_is_given_up() -> None:
    """When the only request for a long prefix is cancelled while that is read, its cells are free again."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    work = errand(own=4, shared=100)
    scheduler.add(work, 0)
    turn(scheduler, memory)
    assert [type(owner) for owner in scheduler.tree] == [Node]
    scheduler.drop([work])
    memory.apply(scheduler)
    assert scheduler.idle and not memory.in_use() and scheduler.cells == 0


def test_what_a_running_request_has_read_serves_those_that_come_later() -> None:
    """A request that begins like one that is already writing forks what that one has read, and reads only the rest."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    early, late = same_beginning(40, 2), same_beginning(40, 2)
    early.answer = 20
    early.room = 20
    scheduler.add(early, 0)
    turn(scheduler, memory)
    turn(scheduler, memory)
    scheduler.add(late, 0)
    assert set(finish(scheduler, memory)) == {early, late}
    assert (early.tokens_in, late.tokens_in, late.tokens_cached) == (42, 2, 40)
    assert memory.in_use() == tree_in_memory(scheduler)


def test_a_long_prompt_that_comes_again_is_not_read_again() -> None:
    """The prompts of the last finished requests stay in memory as long as nobody needs the room."""
    scheduler, memory = Scheduler(LIMITS), Memory()
    works = [same_beginning(70, 4) for _ in range(2)]
    for work in works:
        scheduler.add(work, 0)
        finish(scheduler, memory)
    assert [work.tokens_cached for work in works] == [0, 70]
    assert memory.in_use() == tree_in_memory(scheduler)


def test_kept_prompts_do_not_pile_up() -> None:
    """Of many long prompts that nobody asks for again only the last few stay."""
    scheduler, memory = Scheduler(Limits(cells=5000, tokens=64, rows=32, running=6, sequences=32)), Memory()
    for _ in range(20):
        scheduler.add(errand(own=100), 0)
        for _ in range(10):
            if not scheduler.idle:
                step = scheduler.schedule(0)
                memory.apply(scheduler)
                scheduler.commit(step)
                for part in step.parts:
                    if isinstance(part.owner, Seat) and not part.owner.work.pending:
                        scheduler.release(part.owner)
                memory.apply(scheduler)
    assert len(scheduler.tree) == 4 and scheduler.cells == 400
