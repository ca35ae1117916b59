"""Notes and steps for the tests of the memory."""

from __future__ import annotations

from dataclasses import replace

from dispatch_plans import step

from swarm.config.references import Literal, Ref
from swarm.dispatch.memory.memory import Memory, Summarise
from swarm.dispatch.memory.note import Note
from swarm.dispatch.memory.notebook import Notebook
from swarm.plan.plan import PlannedStep, Remembering
from swarm.state.records import MemoryRecords

KEY = "ann@example.com"


class Time:
    """Goes on by a second with each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def records() -> MemoryRecords:
    return MemoryRecords(lambda: None)


def notebook(kept: MemoryRecords | None = None, scope: str = "-/shop") -> Notebook:
    return Notebook(kept if kept is not None else records(), scope, Time())


def memory(book: Notebook, summarise: Summarise | None = None) -> Memory:
    return Memory(book, summarise)


def remembers(tokens: int = 400, *, read: bool = True, write: bool = True, summarised: bool = False) -> PlannedStep:
    by = replace(step("sum", "small"), name="reply.memory", inputs={"text": Literal("")}) if summarised else None
    return replace(
        step("reply", "small"), memory=Remembering(Ref("input", ("customer",)), tokens, read, write, summariser=by)
    )


def note(i: int, asked: str = "", answered: str = "yes") -> Note:
    return Note(task=f"t-{i}", step="reply", asked=asked or f"question {i}", answered=answered)
